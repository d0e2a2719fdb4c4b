"""Encodes and decodes `tf.train.Example` messages without TensorFlow, in the bytes of its deterministic serialization.

    Example { Features features = 1; }     Features { map<string, Feature> feature = 1; }, sorted by name
    Feature { BytesList bytes_list = 1; Int64List int64_list = 3; }     both lists have the field `value` = 1

Each field is a varint tag, number × 8 + 2, a varint length and its bytes (protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LENGTH_DELIMITED = 2
_UINT64 = 1 << 64
_BYTES_LIST, _INT64_LIST = 1, 3
_MAX_BITS = 64  # of a varint


def encode_example(features: Mapping[str, bytes | Sequence[int]]) -> bytes:
    """Returns an example with a bytes feature of one value, or an int64 feature of any number of values, per name."""
    entries = (
        _encode_field(1, _encode_field(1, name.encode()), _encode_field(2, _encode_feature(features[name])))
        for name in sorted(features, key=_order)
    )
    return _encode_field(1, *entries)


def _order(name: str) -> bytes:
    """Protocol buffers sort names by their bytes, but a name after its own continuations. UTF-8 has no byte 255."""
    return name.encode() + b"\xff"


def _encode_feature(value: bytes | Sequence[int]) -> bytes:
    if isinstance(value, bytes):
        return _encode_field(_BYTES_LIST, _encode_field(1, value))
    packed = b"".join(_encode_varint(int(one) % _UINT64) for one in value)
    return _encode_field(_INT64_LIST, _encode_field(1, packed) if packed else b"")


def _encode_field(number: int, *parts: bytes) -> bytes:
    head = _encode_varint(number << 3 | _LENGTH_DELIMITED) + _encode_varint(sum(map(len, parts)))
    return b"".join((head, *parts))


def _encode_varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def decode_example(data: bytes) -> dict[str, list[Any]]:
    """Returns the values of each feature, bytes or int; ValueError if the data are not an example of this form."""
    decoded = {}
    for _, features in _decode_fields(memoryview(data)):
        for _, entry in _decode_fields(features):
            (_, name), (_, feature) = _decode_fields(entry)
            ((kind, values),) = _decode_fields(feature)
            decoded[bytes(name).decode()] = _decode_values(kind, values)
    return decoded


def _decode_values(kind: int, values: memoryview) -> list[Any]:
    contents = [content for _, content in _decode_fields(values)]
    if kind == _BYTES_LIST:
        return [bytes(content) for content in contents]
    if kind == _INT64_LIST:
        return [number for content in contents for number in _decode_packed(content)]
    raise ValueError("a feature is neither bytes nor int64")


def _decode_fields(data: memoryview) -> list[tuple[int, memoryview]]:
    """Returns the number and the bytes of each field. The numbers of an example are below 16, so a tag is one byte."""
    fields, at = [], 0
    while at < len(data):
        tag, at = data[at], at + 1
        size = shift = 0
        while at < len(data):
            byte, at = data[at], at + 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift >= _MAX_BITS:
                raise ValueError("the length of a field is too large")
        else:
            raise ValueError("the length of a field is truncated")
        if tag & 7 != _LENGTH_DELIMITED or tag > 0x7F or at + size > len(data):
            raise ValueError("not an example of bytes and int64 features")
        fields.append((tag >> 3, data[at : at + size]))
        at += size
    return fields


def _decode_packed(data: memoryview) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value - _UINT64 if value >= _UINT64 >> 1 else value
            value = shift = 0
        elif shift >= _MAX_BITS:
            raise ValueError("an integer is too large")
    if shift:
        raise ValueError("an integer is truncated")
