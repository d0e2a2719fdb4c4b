"""An exported model sees the pixels of the store, for every image that it does not refuse by name."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from features.images.decode import decode
from features.images.resize import Resizer
from schemas.errors import RecordError
from tests.reliability.drawn_images import KINDS, Drawn, chunk, encode, jpegs, png, pngs
from trainer.export.image_graph import PROBLEMS, read_images

SIDE = 16  # images of the size that is wanted are not resized, so that each level is compared
FITTING = Resizer(SIDE, SIDE)
REFUSED = "unsupported: a PNG with EXIF as text or compressed XMP"
SAMPLE = Drawn(2, 8, np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3) % 256)

serve = tf.function(lambda data: read_images(data, FITTING), input_signature=[tf.TensorSpec((None,), tf.string)])


def served(images: list[bytes]) -> tuple[np.ndarray, list[str]]:
    pixels, problems = serve(tf.constant(images, tf.string))
    return pixels.numpy(), [PROBLEMS[problem] for problem in problems.numpy()]


def outcome(data: bytes) -> np.ndarray | str:
    try:
        return decode(data, FITTING)
    except RecordError as error:
        return error.reason


def assert_served_as_stored(images: list[bytes]) -> None:
    """Asserts that each image is served with the store's pixels."""
    pixels, problems = served(images)
    for data, shown, problem in zip(images, pixels, problems, strict=True):
        assert problem == ""
        np.testing.assert_array_equal(shown, decode(data, FITTING))


@given(st.lists(pngs(sides=st.just(SIDE)), min_size=20, max_size=20))
@settings(max_examples=6, deadline=None)
def test_pngs_of_every_kind_are_served_as_stored(images: list[Drawn]) -> None:
    assert_served_as_stored([image.encoded() for image in images])


def test_each_kind_of_png_is_served_by_its_specification() -> None:
    generator = np.random.default_rng(0)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    images = [
        Drawn(
            color,
            depth,
            generator.integers(0, 1 << depth, (SIDE, SIDE, channels[color])),
            tuple(map(tuple, generator.integers(0, 256, (1 << depth, 3)).tolist())) if color == 3 else (),
            interlaced=interlaced,
        )
        for color, depth in KINDS
        for interlaced in (False, True)
    ]
    pixels, problems = served([image.encoded() for image in images])
    assert set(problems) == {""}
    for image, shown in zip(images, pixels, strict=True):
        np.testing.assert_array_equal(shown, image.shown())


@given(st.lists(jpegs(sides=st.just(SIDE)), min_size=20, max_size=20))
@settings(max_examples=12, deadline=None)
def test_jpegs_of_every_kind_are_served_as_stored(images: list[bytes]) -> None:
    assert_served_as_stored(images)


def exif_block(order: str, entries: list[tuple[int, int, int, bytes]], more: bytes = b"") -> bytes:
    """Returns an EXIF block whose directory has these entries: tag, type, count and four bytes."""
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    rows = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + struct.pack(f"{order}H", len(entries)) + rows + bytes(4) + more


@st.composite
def exifs(draw: st.DrawFn) -> bytes:
    """Draws EXIF blocks, sound and odd, with several entries of the orientation."""
    order = draw(st.sampled_from("<>"))
    tags = st.sampled_from([274, 271])
    values = st.one_of(
        st.integers(0, 9).map(lambda value: struct.pack(f"{order}HH", value, 0)),
        st.integers(0, 9).map(lambda value: struct.pack(f"{order}I", value)),
        st.integers(0, 60).map(lambda value: struct.pack(f"{order}I", value)),
        st.binary(min_size=4, max_size=4),
    )
    types = st.one_of(st.just(3), st.integers(0, 18))
    entry = st.tuples(tags, types, st.sampled_from([1, 1, 1, 0, 2, 3, 1 << 20]), values)
    block = exif_block(order, draw(st.lists(entry, max_size=3)), draw(st.binary(max_size=20)))
    return draw(st.sampled_from([b"", b"", b"Exif\0\0"])) + block[: draw(st.sampled_from([None, None, 30, 12, 3]))]


@given(st.lists(st.tuples(exifs(), st.sampled_from([b"", b"6", b"9", b"x"])), min_size=20, max_size=20))
@settings(max_examples=16, deadline=None)
def test_images_with_any_exif_and_xmp_are_turned_as_in_the_store(blocks: list[tuple[bytes, bytes]]) -> None:
    plain = encode(Image.fromarray(SAMPLE.shown()), "JPEG")
    images = []
    for exif, turn in blocks:
        xmp = b'<x tiff:Orientation="%s" tiff:Orientation="3"/>' % turn if turn else b""
        parts = [b"Exif\0\0" + exif, *([b"http://ns.adobe.com/xap/1.0/\0" + xmp] if xmp else [])]
        segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
        images.append(plain[:2] + segments + plain[2:])
        text = [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)] if xmp else []
        images.append(png(SAMPLE.header(), (b"eXIf", exif), *text, *SAMPLE.chunks()))
    assert_served_as_stored(images)


def test_a_marker_inside_of_other_data_turns_no_image() -> None:
    exif = exif_block("<", [(274, 3, 1, b"\6\0\0\0")])
    plain = encode(Image.fromarray(SAMPLE.shown()), "JPEG", comment=b"Exif\0\0" + exif)
    images = [plain, plain + b"Exif\0\0" + exif, png(SAMPLE.header(), (b"quIz", b"eXIf" + exif), *SAMPLE.chunks())]
    profile = b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000)
    late = encode(Image.fromarray(SAMPLE.shown()), "JPEG", exif=b"Exif\0\0" + exif)
    images.append(late[:2] + 6 * profile + late[2:])
    assert_served_as_stored(images)


XMP = b'<x tiff:Orientation="6"/>'
EXTRAS = [
    chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(99)), damage=1),
    chunk(b"tEXt", b"transparency\0red", damage=1),
    chunk(b"tRNS", b"\0"),
    chunk(b"tRNS", bytes(7)),
    chunk(b"gAMA", b"\0\0\0\1"),
    chunk(b"sBIT", b"\1\1\1"),
    chunk(b"bKGD", bytes(6)),
    chunk(b"PLTE", bytes(6)),
    chunk(b"eXIf", b""),
    chunk(b"acTL", struct.pack(">II", 2, 0)),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
]


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: str(extra[4:8]))
@pytest.mark.parametrize("is_last", [False, True])
def test_chunks_beside_the_pixels_do_not_part_store_and_graph(extra: bytes, is_last: bool) -> None:
    data = SAMPLE.encoded()
    at = len(data) - 12 if is_last else 33
    assert_served_as_stored([data[:at] + extra + data[at:]])


def test_what_is_not_read_as_in_the_store_is_refused_by_name() -> None:
    texts = [
        (b"tEXt", b"Raw profile type exif\0..."),
        (b"zTXt", b"Raw profile type exif\0\0..."),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    ]
    _, problems = served([png(SAMPLE.header(), text, *SAMPLE.chunks()) for text in texts])
    assert problems == [REFUSED] * 3
    image = Image.fromarray(SAMPLE.shown())
    _, problems = served([encode(image, form) for form in ("GIF", "BMP", "WEBP", "TIFF", "PPM")])
    assert set(problems) == {"unsupported: neither JPEG nor PNG"}


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT"], ids=str)
def test_a_wrong_checksum_is_refused_as_in_the_store(kind: bytes) -> None:
    drawn = Drawn(3, 8, np.zeros((SIDE, SIDE, 1), np.int64), ((1, 2, 3),), (9,))
    data = png(drawn.header(), (b"eXIf", exif_block("<", [(274, 3, 1, b"\6\0\0\0")])), *drawn.chunks())
    assert_served_as_stored([data])
    at = data.index(kind)
    end = at + 4 + int.from_bytes(data[at - 4 : at])
    wrong = data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]
    assert outcome(wrong) == "corrupt"
    assert served([wrong])[1] == ["corrupt or truncated"]


@given(st.data())
@settings(max_examples=16, deadline=None)
def test_an_image_that_was_changed_is_served_as_stored_or_refused(data: st.DataObject) -> None:
    images = []
    for source in (pngs(sides=st.just(SIDE)).map(Drawn.encoded), jpegs(sides=st.just(SIDE))):
        for _ in range(6):
            image = bytearray(data.draw(source))
            at = data.draw(st.integers(0, len(image) - 1))
            image[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
            images.append(bytes(image))
    for image, shown, problem in zip(images, *served(images), strict=True):
        stored = outcome(image)
        if not problem and not isinstance(stored, str):
            np.testing.assert_array_equal(shown, stored)
