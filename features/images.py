"""One encoded image as pixels: RGB, upright, at the size that a network wants.

bytes → format by signature → pixels counted by header → decoded in full → RGB on white → upright by EXIF → fitted

The rules that pixels depend on have a name in `schemas.recipes.FeatureRecipe` (`rgb-exif-1`): a changed rule here is a
new name there.
"""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base as Tag

from features.fitting import Fitting
from features.resizing import Pixels
from schemas.errors import RecordError

MAX_PIXELS = 178_956_970  # where Pillow itself refuses a picture: half a gibibyte of RGB

# Pillow warns of odd metadata (a damaged EXIF block, an animation that is none) that costs no pixel, and of sizes that
# are judged here. `warnings.catch_warnings` around a call is not thread-safe, so its modules are silenced once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


DraftSize = Callable[[int, int], tuple[int, int] | None]


def _check_nothing(_: bytes) -> None:
    """For formats whose reader notices by itself that the bytes end early."""


def _check_png(data: bytes) -> None:
    """Walks the chunks (PNG specification, section 5).

    Pillow skips the checksums of the pixels, and rows that damage made unreadable stay black.
    """
    at, kind = 8, b""
    while kind != b"IEND":
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data):
            raise _ends_early(data)
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise RecordError("decode", "corrupt", f"the checksum of the {kind!r} chunk at byte {at} is wrong")
        at = end


def _check_webp(data: bytes) -> None:
    """Compares the length in the RIFF header."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise _ends_early(data)


def _check_tiff(data: bytes) -> None:
    """Looks for the first directory and the tables it needs (TIFF 6.0, section 2; BigTIFF).

    Pillow calls what lies beyond the end unsupported, and libtiff writes of it to standard error.
    """
    order = "<" if data[:2] == b"II" else ">"
    at, word, counter, inline = (8, "Q", "Q", 8) if b"+" in data[2:4] else (4, "I", "H", 4)
    entry = struct.Struct(f"{order}HH{word}{word}")
    try:
        (start,) = struct.unpack_from(order + word, data, at)
        (entries,) = struct.unpack_from(order + counter, data, start)
        first = start + struct.calcsize(order + counter)
        for position in range(first, first + entries * entry.size, entry.size):
            tag, kind, count, value = entry.unpack_from(data, position)
            size = count * _TIFF_SIZES.get(kind, 1)
            if tag in _TIFF_TABLES and size > inline and value + size > len(data):
                raise _ends_early(data)
    except (struct.error, OverflowError):
        raise _ends_early(data) from None


def _ends_early(data: bytes) -> RecordError:
    return RecordError("decode", "truncated", f"the file ends after {len(data)} bytes")


_TIFF_SIZES = {3: 2, 4: 4, 16: 8}  # bytes of a SHORT, LONG, LONG8; the tables below have no other types but bytes
_TIFF_TABLES = frozenset(
    (
        Tag.BitsPerSample,
        Tag.StripOffsets,
        Tag.StripByteCounts,
        Tag.ColorMap,
        Tag.TileOffsets,
        Tag.TileByteCounts,
        Tag.JPEGTables,
    )
)


@dataclass(frozen=True)
class _Format:
    """A format that is read: how its files begin, what is checked before, and Pillow's reader of it."""

    begins: re.Pattern[bytes]
    check: Callable[[bytes], None]
    # Called by class, for `Image.open` would apply its process-wide pixel limit, with a warning, before ours.
    reader: Callable[[BytesIO, str], ImageFile.ImageFile]


_FORMATS = (
    _Format(re.compile(rb"\xff\xd8\xff"), _check_nothing, JpegImagePlugin.JpegImageFile),
    _Format(re.compile(rb"\x89PNG\r\n\x1a\n"), _check_png, PngImagePlugin.PngImageFile),
    _Format(re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _check_webp, WebPImagePlugin.WebPImageFile),
    _Format(re.compile(rb"GIF8[79]a"), _check_nothing, GifImagePlugin.GifImageFile),
    # "BM" begins many a text; the length of the header after it has few lawful values.
    _Format(
        re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
        _check_nothing,
        BmpImagePlugin.BmpImageFile,
    ),
    _Format(re.compile(rb"II[*+]\0|MM\0[*+]"), _check_tiff, TiffImagePlugin.TiffImageFile),
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ON_ITS_SIDE = (5, 6, 7, 8)

_WORDS = (
    ("truncated", re.compile(r"truncat|end of file|not enough image data", re.IGNORECASE)),
    ("unsupported", re.compile(r"unsupported|not supported|unknown|cannot handle|not available", re.IGNORECASE)),
)


def decode(data: bytes, fitting: Fitting, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decodes an image and brings it to a size.

    Args:
        data: bytes. An encoded image; the formats and rules are those of `open_image`.
        fitting: Fitting. The size, and how the image is brought to it.
        max_pixels: int. Pictures with more pixels than this are refused by their header.

    Returns: array [height, width, 3] of the fitting's dtype, RGB in 0…255, of its own memory.

    Raises: RecordError as `open_image` does.
    """
    image = open_image(data, max_pixels=max_pixels, draft_size=fitting.draft_size)
    try:
        return fitting(image)
    except MemoryError:
        size = f"{image.width}×{image.height}"
        raise RecordError("decode", "no memory", f"while resizing a picture of {size}", permanent=False) from None


def open_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, draft_size: DraftSize = lambda width, height: None
) -> Image.Image:
    """Decodes an image in full, at its own size or, where less is enough of a JPEG, at a half, a quarter or an eighth.

    JPEG, PNG, WebP, GIF, BMP and TIFF are told by their first bytes, whatever the file is called; the first frame or
    page counts. What is transparent shows white, the paper that such pictures are made for: dropping the alpha channel
    would bring up whatever colour lies hidden under it. CMYK is converted without its profile, JPEG's inverted as
    Adobe writes it. 16-bit samples keep their high byte; floating point has black at 0 and white at 1. The EXIF
    orientation (CIPA DC-008, tag 274; where EXIF has none, XMP's) is applied; what cannot be read is upright.

    Args:
        data: bytes. An encoded image.
        max_pixels: int. Pictures with more pixels than this are refused by their header, before decoding. Pillow's
            `Image.MAX_IMAGE_PIXELS` bounds TIFF and GIF besides; `allow_pixels` raises it.
        draft_size: function of the upright picture's width and height. The width and height that are enough: a JPEG is
            decoded at the smallest of its scales (libjpeg's, of the cosine transform) that has as many pixels. None
            wants all.

    Returns: PIL image of mode RGB, upright.

    Raises: RecordError of stage `decode`, with one of the reasons `empty` (no bytes), `unsupported` (another format, or
        samples without a defined white), `truncated` (the bytes end early), `corrupt`, `too large`, `no memory` (not
        permanent). A picture whose bytes end early is never returned in part. Damage in the middle shows where a
        format has checksums (PNG, deflated TIFF) or the decoder stumbles, and else in the pixels. (Of damage inside a
        compressed TIFF libtiff writes a line to standard error, which Pillow gives no means to stop.)
    """
    if not data:
        raise RecordError("decode", "empty", "zero bytes")
    reader = _reader(data)
    try:
        with reader(BytesIO(data), "") as image:
            _check_pixels(image, max_pixels)
            _draft(image, draft_size)
            image.load()
            return _upright(_rgb(image), _orientation(image))
    except RecordError:
        raise
    except MemoryError:
        raise RecordError("decode", "no memory", f"while decoding {len(data)} bytes", permanent=False) from None
    except Exception as error:  # Pillow's readers raise nearly any class on bytes that were made to confuse them.
        raise RecordError("decode", _reason(error), _detail(error)) from error


def begins_as_image(data: bytes) -> bool:
    """Whether some bytes begin as a format that `open_image` reads; 18 of them tell."""
    return any(form.begins.match(data) for form in _FORMATS)


def allow_pixels(max_pixels: int) -> None:
    """Raise Pillow's own limit on TIFF and GIF, which the whole process has, to `max_pixels` where it is lower."""
    if Image.MAX_IMAGE_PIXELS is not None:
        # Pillow refuses what has more than twice as many.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-max_pixels // 2))


def encode_thumbnail(data: bytes, side: int) -> bytes:
    """A small JPEG of an image for a page, in its own proportions and never enlarged.

    Args:
        data: bytes. An encoded image, as `open_image` takes it.
        side: int. Length of the longer side in pixels, at most.

    Raises: RecordError as `open_image` does.
    """
    image = open_image(data)
    image.thumbnail((side, side))
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def _reader(data: bytes) -> Callable[[BytesIO, str], ImageFile.ImageFile]:
    known = next((form for form in _FORMATS if form.begins.match(data)), None)
    if known is None:
        raise RecordError("decode", "unsupported", f"no known image format begins with {data[:8]!r}")
    known.check(data)
    return known.reader


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise RecordError("decode", "too large", f"{image.width}×{image.height}, {max_pixels} pixels at most")


def _draft(image: Image.Image, draft_size: DraftSize) -> None:
    """Have a JPEG decoded smaller, where that is enough."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        is_on_its_side = _orientation(image) in _ON_ITS_SIDE
        enough = draft_size(*_turned(image.size, is_on_its_side))
        if enough:
            image.draft(None, _turned(enough, is_on_its_side))


def _turned(size: tuple[int, int], is_on_its_side: bool) -> tuple[int, int]:
    return (size[1], size[0]) if is_on_its_side else size


def _rgb(image: Image.Image) -> Image.Image:
    image = _eight_bits(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "I":
        raise RecordError("decode", "unsupported", "32-bit integer samples, which have no defined white")
    if image.mode != "F" and not image.mode.startswith("I;16"):
        return image
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    samples = np.asarray(image)
    gray = _gray_of_float(samples) if image.mode == "F" else samples >> (tags.get(Tag.BitsPerSample, (16,))[0] - 8)
    white_is_zero = tags.get(Tag.PhotometricInterpretation) == 0
    return Image.fromarray(np.asarray(255 - gray if white_is_zero else gray, np.uint8))


def _gray_of_float(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    slack = 1 / 255  # resampling overshoots a little
    if not np.all((samples >= -slack) & (samples <= 1 + slack)):
        raise RecordError("decode", "unsupported", "floating-point samples outside 0…1")
    return np.rint(np.clip(samples, 0, 1) * 255)


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(Tag.Orientation)
    except Exception:  # Damaged metadata must not cost the picture.
        return None


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _detail(error: Exception) -> str:
    # The readers wrap bare KeyErrors and IndexErrors, whose text may be a number.
    return str(error) if any(c.isalpha() for c in str(error)) else repr(error.__cause__ or error)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "too large"
    for reason, pattern in _WORDS:
        if pattern.search(str(error)):
            return reason
    # A reader that runs out of bytes within a header fails on the index or the structure that it wanted there.
    ran_out = isinstance(error, EOFError | IndexError | struct.error)
    return "truncated" if ran_out or isinstance(error.__cause__, EOFError | IndexError | struct.error) else "corrupt"
