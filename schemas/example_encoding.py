"""Encodes `tf.train.Example` messages without TensorFlow, in the bytes of its deterministic serialization.

    Example { Features features = 1; }     Features { map<string, Feature> feature = 1; }, sorted by name
    Feature { BytesList bytes_list = 1; Int64List int64_list = 3; }     both lists have the field `value` = 1

Each field is a varint tag, number × 8 + 2, a varint length and its bytes (protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Mapping, Sequence

_LENGTH_DELIMITED = 2
_UINT64 = 1 << 64


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
        return _encode_field(1, _encode_field(1, value))
    packed = b"".join(_encode_varint(int(one) % _UINT64) for one in value)
    return _encode_field(3, _encode_field(1, packed) if packed else b"")


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
