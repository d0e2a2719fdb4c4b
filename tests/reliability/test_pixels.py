"""The pixels of a stored image are those that its format's specification says."""

import struct
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from features.images.decode import open_image
from schemas.errors import RecordError
from tests.reliability.drawn_images import KINDS, PALETTE, Drawn, chunk, encode, png, pngs

WHITE = [255, 255, 255]


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(open_image(data))


def reason_of(data: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        open_image(data)
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_png_of_any_kind_is_decoded_by_the_specification(kind: tuple[int, int], data: st.DataObject) -> None:
    drawn = data.draw(pngs(st.just(kind)))
    np.testing.assert_array_equal(pixels_of(drawn.encoded()), drawn.shown())


def test_every_alpha_is_laid_on_white_to_the_nearest_level() -> None:
    levels = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1)
    drawn = Drawn(4, 8, levels)
    np.testing.assert_array_equal(pixels_of(drawn.encoded()), drawn.shown())


SAMPLE = Drawn(2, 8, np.arange(5 * 4 * 3).reshape(5, 4, 3) * 4)
ANCILLARY = {
    b"iCCP": b"profile\0\0" + zlib.compress(bytes(99)),
    b"tEXt": b"transparency\0red",
    b"zTXt": b"bbox\0\0" + zlib.compress(b"words"),
    b"iTXt": b"exif\0\0\0\0\0words",
    b"tIME": bytes(7),
    b"gAMA": b"\0",
    b"sRGB": b"",
    b"pHYs": b"\0",
    b"acTL": b"\0",
    b"fcTL": b"\0" * 4,
    b"cHRM": b"123",
    b"quIz": b"?",
}


@pytest.mark.parametrize("kind", ANCILLARY, ids=str)
@pytest.mark.parametrize("damage", [0, 1])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_chunk_that_no_picture_needs_affects_no_image(kind: bytes, damage: int, is_first: bool) -> None:
    extra = chunk(kind, ANCILLARY[kind], damage)
    data = SAMPLE.encoded()
    at = 33 if is_first else len(data) - 12
    np.testing.assert_array_equal(pixels_of(data[:at] + extra + data[at:]), SAMPLE.shown())


def test_a_text_that_unpacks_to_much_affects_no_image() -> None:
    text = zlib.compress(bytes(1 << 22))
    packed = ((b"zTXt", b"Raw profile type exif\0\0" + text), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text))
    long = (b"tEXt", b"Raw profile type exif\0" + b"a" * (1 << 22))
    for extra in (*packed, long):
        np.testing.assert_array_equal(pixels_of(png(SAMPLE.header(), extra, *SAMPLE.chunks())), SAMPLE.shown())


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"], ids=str)
def test_a_chunk_that_decides_the_picture_needs_a_right_checksum(kind: bytes) -> None:
    drawn = Drawn(PALETTE, 8, np.zeros((2, 2, 1), np.int64), ((1, 2, 3),), (9,))
    data = png(drawn.header(), (b"eXIf", b"II*\0\x08\0\0\0\0\0"), *drawn.chunks())
    at = data.index(kind)
    end = at + 4 + int.from_bytes(data[at - 4 : at])
    assert pixels_of(data).shape == (2, 2, 3)
    assert reason_of(data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]) == "corrupt"


def test_a_color_beyond_the_palette_is_black() -> None:
    drawn = Drawn(PALETTE, 4, np.array([[[0], [1], [9]]]), ((10, 20, 30), (40, 50, 60)))
    assert pixels_of(drawn.encoded())[0].tolist() == [[10, 20, 30], [40, 50, 60], [0, 0, 0]]


def test_transparency_that_does_not_fit_the_picture_is_ignored() -> None:
    after = [*SAMPLE.chunks(), (b"tRNS", struct.pack(">3H", *SAMPLE.samples[0, 0]))]
    short = [(b"tRNS", b"\0"), *SAMPLE.chunks()]
    for chunks in (after, short):
        np.testing.assert_array_equal(pixels_of(png(SAMPLE.header(), *chunks)), SAMPLE.shown())


@pytest.mark.parametrize(("color", "depth", "interlace"), [(3, 16, 0), (2, 4, 0), (5, 8, 0), (2, 8, 2)])
def test_a_header_that_is_not_defined_is_corrupt(color: int, depth: int, interlace: int) -> None:
    header = struct.pack(">IIBBBBB", 4, 5, depth, color, 0, 0, interlace)
    assert reason_of(png(header, *SAMPLE.chunks())) == "corrupt"


def test_a_palette_that_is_missing_or_there_twice_is_corrupt() -> None:
    drawn = Drawn(PALETTE, 8, np.zeros((2, 2, 1), np.int64), ((1, 2, 3),))
    palette, pixels = drawn.chunks()
    assert reason_of(png(drawn.header(), pixels)) == "corrupt"
    assert reason_of(png(drawn.header(), palette, palette, pixels)) == "corrupt"


def test_a_corrupt_tiff_writes_nothing_to_standard_error() -> None:
    assert features.check("libtiff")
    image = Image.effect_noise((64, 64), 50)
    damaged = []
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "group4", "packbits", "jpeg"):
        data = bytearray(
            encode(image.convert("1") if compression == "group4" else image, "TIFF", compression=compression)
        )
        data[60:90] = bytes(range(200, 230))
        damaged.append(bytes(data))
    code = f"""
from features.images.decode import open_image
from schemas.errors import RecordError
for data in {damaged!r}:
    try:
        open_image(data)
    except RecordError as error:
        print(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr == ""


def test_a_large_picture_is_converted_as_a_small_one() -> None:
    generator = np.random.default_rng(0)
    for mode in ("P", "LA", "CMYK", "I;16"):
        shape = {"P": (1100, 1000), "LA": (1100, 1000, 2), "CMYK": (1100, 1000, 4), "I;16": (1100, 1000)}[mode]
        dtype = np.uint16 if mode == "I;16" else np.uint8
        image = Image.fromarray(generator.integers(0, np.iinfo(dtype).max, shape, dtype), mode)
        if mode == "P":
            image.putpalette(generator.integers(0, 256, 768).tolist())
        options = {"transparency": bytes(range(256))} if mode == "P" else {}
        whole = pixels_of(encode(image, "TIFF" if mode == "CMYK" else "PNG", **options))
        part = pixels_of(encode(image.crop((900, 1040, 1000, 1100)), "TIFF" if mode == "CMYK" else "PNG", **options))
        np.testing.assert_array_equal(whole[1040:, 900:], part)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_png_is_turned_by_its_exif_or_xmp(orientation: int) -> None:
    exif = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 274, 3, 1, orientation, 0, 0)
    xmp = f'<x tiff:Orientation="{orientation}"/>'.encode()
    raw = b"\nexif\n%8d\n" % (len(exif) + 6) + (b"Exif\0\0" + exif).hex().encode()
    turned = np.rot90(SAMPLE.shown(), {3: 2, 6: 3}[orientation])
    for extra in (
        (b"eXIf", exif),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
        (b"tEXt", b"Raw profile type exif\0" + raw),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
    ):
        np.testing.assert_array_equal(pixels_of(png(SAMPLE.header(), extra, *SAMPLE.chunks())), turned)
        assert Image.open(BytesIO(SAMPLE.encoded())).size == (4, 5)
