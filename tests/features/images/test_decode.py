"""Encoded images are decoded to upright RGB pixels, or fail with a reason."""

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from features.images.decode import decode, encode_thumbnail, open_image, raise_pixel_limit
from features.images.resize import Resizer
from schemas.errors import RecordError

# pytest undoes the filters that a module sets while it is being collected.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

WIDTH, HEIGHT = 48, 32
SIZE = Resizer(HEIGHT, WIDTH)


def sample_image() -> Image.Image:
    """Returns a smooth image without symmetry, to detect wrong rotations and channels."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    pixels = np.stack([x, y, (1 - x) * y], axis=-1)
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


def encode(image: Image.Image, form: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(open_image(data))


def reason_of(data: bytes, **options) -> str:
    with pytest.raises(RecordError) as caught:
        decode(data, Resizer(8, 8), **options)
    assert caught.value.stage == "decode"
    return caught.value.reason


def outcome(data: bytes) -> np.ndarray | str:
    """Returns the pixels, or the reason of the failure."""
    try:
        return np.asarray(open_image(data, max_pixels=1_000_000))
    except RecordError as error:
        return error.reason


def run_length_bitmap() -> bytes:
    """Returns a BMP of 4×2 pixels in run-length encoding, which Pillow cannot write."""
    palette = bytes([0, 0, 0, 0, 255, 255, 255, 0, 0, 0, 255, 0])
    rows = bytes([4, 1, 0, 0, 2, 0, 2, 1, 0, 0, 0, 1])
    at = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(rows), 0, 0, 3, 0)
    return struct.pack("<2sIHHI", b"BM", at + len(rows), 0, 0, at) + info + palette + rows


@cache
def samples() -> dict[str, bytes]:
    image = sample_image()
    other = image.transpose(Image.Transpose.ROTATE_180)
    return {
        "jpeg": encode(image, "JPEG"),
        "jpeg progressive": encode(image, "JPEG", progressive=True, subsampling=2),
        "jpeg gray": encode(image.convert("L"), "JPEG"),
        "png": encode(image, "PNG"),
        "png palette": encode(image.quantize(), "PNG"),
        "webp": encode(image, "WEBP"),
        "webp lossless": encode(image, "WEBP", lossless=True),
        "webp animated": encode(image, "WEBP", save_all=True, append_images=[other]),
        "gif": encode(image, "GIF"),
        "gif animated": encode(image, "GIF", save_all=True, append_images=[other]),
        "bmp": encode(image, "BMP"),
        "bmp run-length": run_length_bitmap(),
        "tiff": encode(image, "TIFF"),
        "tiff deflate": encode(image, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encode(image, "TIFF", compression="jpeg"),
        "tiff fax": encode(image.convert("1"), "TIFF", compression="group4"),
        "jpeg2000": encode(image, "JPEG2000", irreversible=True),
        "jpeg2000 codestream": encode(image, "JPEG2000", no_jp2=True),
        "jpeg2000 tiled": encode(image, "JPEG2000", tile_size=(16, 16)),
        "avif": encode(image, "AVIF"),
        "avif animated": encode(image, "AVIF", save_all=True, append_images=[other]),
        "ppm": encode(image, "PPM"),
        "pgm 16-bit": encode(Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257), "PPM"),
        "pbm": encode(image.convert("1"), "PPM"),
    }


N_RESAMPLES = sorted(samples())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM"])
def test_each_supported_format_decodes_to_its_image(form):
    pixels = decode(encode(sample_image(), form), SIZE)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(sample_image())).mean() < 6


def test_the_result_is_writable():
    pixels = decode(encode(sample_image(), "PNG"), SIZE)
    pixels[:] = 0
    assert pixels.flags.c_contiguous


def test_a_jpeg_is_decoded_in_full_before_it_shrinks():
    data = encode(sample_image().resize((640, 480)), "JPEG")
    wanted = np.asarray(Image.open(BytesIO(data)).convert("RGB").resize((40, 40), Image.Resampling.BILINEAR))
    assert np.array_equal(decode(data, Resizer(40, 40)), wanted)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(form, orientation):
    upright = sample_image()
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    pixels = pixels_of(encode(stored, form, exif=exif)).astype(int)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels - np.asarray(upright)).mean() < 6


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
def test_a_corrupt_exif_block_does_not_fail_the_image(exif):
    plain = pixels_of(encode(sample_image(), "JPEG"))
    assert np.array_equal(pixels_of(encode(sample_image(), "JPEG", exif=exif)), plain)


def test_only_the_first_frame_of_an_animation_is_decoded():
    for name in ("gif animated", "webp animated", "avif animated"):
        assert np.abs(pixels_of(samples()[name]).astype(int) - np.asarray(sample_image())).mean() < 6


def test_only_the_first_page_of_a_tiff_is_decoded():
    pages = encode(sample_image(), "TIFF", save_all=True, append_images=[Image.new("RGB", (7, 7))])
    assert np.array_equal(pixels_of(pages), np.asarray(sample_image()))


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *((form, "RGBA") for form in ("PNG", "WEBP", "TIFF", "JPEG2000", "AVIF")),
        *((form, "LA") for form in ("PNG", "TIFF", "JPEG2000", "AVIF")),
    ],
)
def test_transparent_pixels_show_white(form, mode):
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 16))
    image.paste((0, 0, 0, 128), (0, 0, 4, 16))
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(form, {})
    pixels = pixels_of(encode(image.convert(mode), form, **options))
    assert pixels[8, 2].tolist() == [127, 127, 127]
    assert pixels[8, 6].tolist() == [0, 0, 0]
    assert pixels[8, 12].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_white(form):
    image = Image.new("P", (4, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 0, 1, 1])
    pixels = pixels_of(encode(image, form, transparency=1))
    assert pixels[0].tolist() == [[255, 0, 0], [255, 0, 0], [255, 255, 255], [255, 255, 255]]


def test_a_transparent_color_of_a_png_shows_white():
    image = Image.new("RGB", (2, 1), (9, 9, 9))
    image.putpixel((1, 0), (0, 200, 0))
    assert pixels_of(encode(image, "PNG", transparency=(9, 9, 9)))[0].tolist() == [[255, 255, 255], [0, 200, 0]]


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "JPEG2000"])
def test_cmyk_is_not_shown_as_its_negative(form):
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(pixels_of(encode(ink, form)).astype(int) - [0, 255, 255]).max() <= 3


def test_sixteen_bit_gray_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    for form in ("PNG", "TIFF", "JPEG2000"):
        pixels = pixels_of(encode(Image.fromarray(ramp), form))
        assert np.array_equal(pixels[0, :, 0], ramp[0] >> 8)
        assert np.array_equal(pixels[..., 0], pixels[..., 2])


def tiff(samples: np.ndarray, bits: int, sample_format: int, photometric: int = 1) -> bytes:
    """Returns a gray TIFF of one uncompressed strip (TIFF 6.0), for sample types that Pillow cannot write."""
    data = samples.tobytes()
    height, width = samples.shape
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    fields |= {279: len(data), 339: sample_format}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return head + data + struct.pack("<H", len(fields)) + directory + bytes(4)


def test_gray_with_white_at_zero_is_inverted():
    data = tiff(np.array([[0, 65535]], np.uint16), bits=16, sample_format=1, photometric=0)
    assert pixels_of(data)[0, :, 0].tolist() == [255, 0]


def test_floating_point_has_white_at_one():
    data = tiff(np.array([[0, 0.5, 1, 1.001]], np.float32), bits=32, sample_format=3)
    assert pixels_of(data)[0, :, 0].tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("value", [255.0, -1.0, np.nan, np.inf])
def test_floating_point_outside_its_range_is_unsupported(value):
    assert reason_of(tiff(np.array([[0, value]], np.float32), bits=32, sample_format=3)) == "unsupported"


def test_samples_without_a_defined_white_are_unsupported():
    assert reason_of(tiff(np.array([[0, 9]], np.int32), bits=32, sample_format=2)) == "unsupported"


def test_lab_colors_are_converted():
    lab = ImageCms.profileToProfile(
        sample_image(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(pixels_of(encode(lab, "TIFF")).astype(int) - np.asarray(sample_image())).mean() < 3


def test_one_bit_images_are_black_and_white():
    image = Image.new("1", (8, 8))
    image.paste(1, (0, 0, 4, 8))
    for form in ("PNG", "BMP", "TIFF", "GIF", "PPM"):
        pixels = pixels_of(encode(image, form))
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[0, 7].tolist() == [0, 0, 0]


def test_zero_bytes_fail_as_empty():
    assert reason_of(b"") == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b"not an image\n",
        b"BMW built this car in 1972 and painted it red.",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"P6 or P3, that is the question",
        b"P7\nWIDTH 1\n",
        b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
        b"II",
    ],
)
def test_other_bytes_are_unsupported(data):
    assert reason_of(data) == "unsupported"


@pytest.mark.parametrize("form", ["TGA", "ICO", "PCX", "SGI"])
def test_other_formats_of_pillow_are_unsupported(form):
    assert reason_of(encode(sample_image(), form)) == "unsupported"


@pytest.mark.parametrize("name", N_RESAMPLES)
def test_an_incomplete_image_is_truncated_and_never_decoded_in_part(name):
    data = samples()[name]
    whole = pixels_of(data)
    for length in range(20, len(data), 7):
        shown = outcome(data[:length])
        assert np.array_equal(shown, "truncated") or np.array_equal(shown, whole), length


def test_only_bytes_after_the_pixels_may_be_missing():
    spared = {"gif": 2, "tiff fax": 4}  # the trailer, the pointer to the next page
    for name, tail in spared.items():
        data = samples()[name]
        assert np.array_equal(pixels_of(data[:-tail]), pixels_of(data))
        assert reason_of(data[: -tail - 1]) == "truncated"


def test_corrupt_bytes_are_corrupt():
    for name in ("png", "png palette", "tiff deflate"):
        data = bytearray(samples()[name])
        data[len(data) // 2] ^= 0xFF
        assert reason_of(bytes(data)) == "corrupt"


@pytest.mark.parametrize("name", N_RESAMPLES)
def test_an_image_above_the_limit_is_rejected_by_its_header(name, monkeypatch):
    def no_load(*_):
        raise AssertionError("pixels were decoded")

    data = samples()[name]
    image = open_image(data)
    assert open_image(data, max_pixels=image.width * image.height).size == image.size
    monkeypatch.setattr(ImageFile.ImageFile, "load", no_load)
    assert reason_of(data, max_pixels=image.width * image.height - 1) == "too large"


def test_a_decompression_bomb_is_rejected_in_little_memory():
    code = """
import resource, struct, zlib
from features.images.resize import Resizer
from features.images.decode import decode
from schemas.errors import RecordError

def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

def still(size):
    return b"VP8X" + struct.pack("<I", 10) + bytes(4) + (size - 1).to_bytes(3, "little") * 2

def riff(body):
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body

row = zlib.compress(bytes(60_001 * 3 + 1))
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
png += chunk(b"IDAT", row) + chunk(b"IEND", b"")
for bomb in (png, riff(still(1 << 15)), b"GIF89a" + b"\\xff" * 6 + bytes(99)):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode(bomb, Resizer(8, 8))
    except RecordError as error:
        print(error.reason, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "too large True"
    assert [line.split()[-1] for line in lines] == ["True"] * 3
    assert done.stderr == ""


def test_pillows_limits_and_warnings_have_no_effect():
    limit, tolerant = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    code = f"""
from io import BytesIO
from PIL import Image
from features.images.resize import Resizer
from features.images.decode import decode, open_image
gray = BytesIO()
Image.new("1", (10_000, 9_000)).save(gray, "PNG")
print(open_image(gray.getvalue()).size)
decode({samples()["tiff"]!r}[:-20] + bytes(20), Resizer(8, 8))
print(Image.MAX_IMAGE_PIXELS == {limit})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(10000, 9000)", "True"]
    assert done.stderr == ""
    assert tolerant is False


def test_threads_decode_to_equal_pixels():
    names = N_RESAMPLES * 20
    wanted = {name: decode(samples()[name], Resizer(24, 24)) for name in N_RESAMPLES}
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda name: decode(samples()[name], Resizer(24, 24)), names)
        assert all(np.array_equal(got, wanted[name]) for name, got in zip(names, results, strict=True))


def assert_decodes_or_fails(data: bytes) -> None:
    shown = outcome(data)
    if isinstance(shown, str):
        assert shown in {"empty", "unsupported", "truncated", "corrupt", "too large"}
    else:
        assert (shown.ndim, shown.shape[2], shown.dtype) == (3, 3, np.uint8)


@given(st.binary(max_size=200), st.sampled_from([b"", *(data[:20] for data in samples().values())]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_decode_or_fail_with_a_reason(data, head):
    assert_decodes_or_fails(head + data)


@given(
    st.sampled_from(N_RESAMPLES),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6),
    st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_mutated_files_decode_or_fail_with_a_reason(name, changes, inserted):
    data = bytearray(samples()[name])
    for place, new in changes:
        at = place % len(data)
        data[at : at if inserted else at + len(new)] = new
    assert_decodes_or_fails(bytes(data))


@pytest.mark.slow
@given(
    st.sampled_from(N_RESAMPLES),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=8), st.integers(0, 8)), min_size=1, max_size=9),
    st.integers(0, 10_000),
)
@settings(max_examples=20_000, deadline=None, database=None)
def test_heavily_mutated_files_decode_or_fail_with_a_reason(name, changes, kept):
    data = bytearray(samples()[name])
    for place, new, gone in changes:
        at = place % (len(data) + 1)
        data[at : at + gone] = new
    assert_decodes_or_fails(bytes(data[: max(16, kept)]))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_of_pillow_is_raised(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert reason_of(samples()["tiff"]) == "too large"
    raise_pixel_limit(WIDTH * HEIGHT)
    assert pixels_of(samples()["tiff"]).shape == (HEIGHT, WIDTH, 3)
    assert Image.MAX_IMAGE_PIXELS == WIDTH * HEIGHT / 2
    raise_pixel_limit(1)
    assert Image.MAX_IMAGE_PIXELS == WIDTH * HEIGHT / 2


def test_a_thumbnail_is_a_small_jpeg_with_the_aspect_ratio_of_the_image():
    data = encode(sample_image().resize((600, 400)), "PNG")
    thumbnail = Image.open(BytesIO(encode_thumbnail(data, 150)))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (150, 100))


def test_a_thumbnail_is_never_larger_than_its_image():
    assert Image.open(BytesIO(encode_thumbnail(encode(sample_image(), "GIF"), 500))).size == (WIDTH, HEIGHT)


def test_a_thumbnail_of_a_corrupt_image_is_an_error():
    with pytest.raises(RecordError, match="truncated"):
        encode_thumbnail(samples()["jpeg"][:-30], 50)


DRAFT = Resizer(20, 30, "draft-bilinear")


def photograph(width: int, height: int, form: str = "JPEG", **options) -> bytes:
    return encode(sample_image().resize((width, height), Image.Resampling.BICUBIC), form, **options)


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((59, 40), (59, 40)),
        ((60, 39), (60, 39)),
        ((60, 40), (30, 20)),
        ((121, 81), (31, 21)),
        ((480, 100), (120, 25)),
        ((4000, 2000), (500, 250)),
    ],
    ids=str,
)
def test_a_jpeg_is_decoded_at_the_smallest_sufficient_scale(size, decoded):
    assert open_image(photograph(*size), draft_size=lambda width, height: (30, 20)).size == decoded


def test_the_draft_size_is_that_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    requested = []

    def enough(width: int, height: int) -> tuple[int, int]:
        requested.append((width, height))
        return 50, 100

    image = open_image(photograph(400, 200, exif=exif), draft_size=enough)
    assert requested == [(200, 400)]
    assert image.size == (50, 100)


def test_a_draft_approximates_the_image_and_equals_it_at_full_scale():
    large, small = photograph(960, 640), photograph(50, 35)
    whole, draft = (decode(large, Resizer(20, 30, rule)).astype(int) for rule in ("pillow-bilinear", "draft-bilinear"))
    assert 0 < np.abs(whole - draft).max() <= 8
    assert np.array_equal(decode(small, DRAFT), decode(small, Resizer(20, 30)))
    png = photograph(960, 640, "PNG")
    assert np.array_equal(decode(png, DRAFT), decode(png, Resizer(20, 30)))


def test_a_draft_is_rejected_if_the_whole_image_is_too_large_or_truncated():
    large = photograph(960, 640)
    with pytest.raises(RecordError, match="too large"):
        decode(large, DRAFT, max_pixels=960 * 640 - 1)
    with pytest.raises(RecordError, match="truncated"):
        decode(large[: len(large) // 2], DRAFT)
