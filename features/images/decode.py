"""One encoded image as pixels: RGB, upright, at the size that a network wants.

bytes → format by signature → pixels counted by header → decoded in full → RGB on white → upright by EXIF → fitted

The rules that pixels depend on have a name in `schemas.table_config.FeatureTableConfig` (`rgb-exif-1`): a changed
rule here is a
new name there.
"""

import contextlib
import ctypes
import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)
from PIL.ExifTags import Base as Tag

from features.images import png_chunks
from features.images.resize import Pixels
from features.images.resizer import Resizer
from schemas.errors import RecordError

MAX_PIXELS = 178_956_970  # where Pillow itself refuses a picture: half a gibibyte of RGB

# Pillow warns of odd metadata (a damaged EXIF block, an animation that is none) that costs no pixel, and of sizes that
# are judged here. `warnings.catch_warnings` around a call is not thread-safe, so its modules are silenced once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _silence_libtiff() -> None:
    """Silences libtiff, which prints errors to standard error. Pillow raises its own error for the same image."""
    # A shared library exports the functions of the libraries that it links to, except on Windows.
    set_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
    if set_handler:
        set_handler.restype, set_handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        set_handler(None)


_silence_libtiff()

DraftSize = Callable[[int, int], tuple[int, int] | None]


def _as_it_is(data: bytes) -> bytes:
    """For formats whose reader notices by itself that the bytes end early."""
    return data


def _checked_webp(data: bytes) -> bytes:
    """Compares the length in the RIFF header."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise _ends_early(data)
    return data


def _checked_tiff(data: bytes) -> bytes:
    """Looks for the first directory and the tables it needs (TIFF 6.0, section 2; BigTIFF).

    Pillow calls what lies beyond the end unsupported.
    """
    order = "<" if data[:2] == b"II" else ">"
    at, word, counter, inline = (8, "Q", "Q", 8) if b"+" in data[2:4] else (4, "I", "H", 4)
    entry = struct.Struct(f"{order}HH{word}{word}")
    try:
        (start,) = struct.unpack_from(order + word, data, at)
        if start > len(data):
            raise _ends_early(data)
        (entries,) = struct.unpack_from(order + counter, data, start)
        first = start + struct.calcsize(order + counter)
        for position in range(first, first + entries * entry.size, entry.size):
            tag, kind, count, value = entry.unpack_from(data, position)
            size = count * _TIFF_SIZES.get(kind, 1)
            if tag in _TIFF_TABLES and size > inline and value + size > len(data):
                raise _ends_early(data)
    except struct.error:
        raise _ends_early(data) from None
    return data


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
    """A format that is read: how its files begin, what its reader gets of a file, and Pillow's reader of it."""

    begins: re.Pattern[bytes]
    checked: Callable[[bytes], bytes]
    # Called by class, for `Image.open` would apply its process-wide pixel limit, with a warning, before ours.
    reader: Callable[[BytesIO, str], ImageFile.ImageFile]


_FORMATS = (
    _Format(re.compile(rb"\xff\xd8\xff"), _as_it_is, JpegImagePlugin.JpegImageFile),
    _Format(re.compile(rb"\x89PNG\r\n\x1a\n"), png_chunks.select_chunks, PngImagePlugin.PngImageFile),
    _Format(re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _checked_webp, WebPImagePlugin.WebPImageFile),
    _Format(re.compile(rb"GIF8[79]a"), _as_it_is, GifImagePlugin.GifImageFile),
    # "BM" begins many a text; the length of the header after it has few lawful values.
    _Format(
        re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
        _as_it_is,
        BmpImagePlugin.BmpImageFile,
    ),
    _Format(re.compile(rb"II[*+]\0|MM\0[*+]"), _checked_tiff, TiffImagePlugin.TiffImageFile),
)

_TILE = 1 << 20  # pixels that are converted at once

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


def decode(data: bytes, fitting: Resizer, *, max_pixels: int = MAX_PIXELS) -> Pixels:
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
        format has checksums (PNG, deflated TIFF) or the decoder stumbles, and else in the pixels.
    """
    if not data:
        raise RecordError("decode", "empty", "zero bytes")
    with _decoding(f"{len(data)} bytes"):
        return _upright(*_read(data, max_pixels, draft_size))


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a picture that Pillow has opened, or that was made of an array, by the rules of `open_image`.

    Args:
        image: The picture, of any mode. Of several frames the present one counts.

    Returns:
        The picture in mode RGB, upright.

    Raises:
        RecordError: As by `open_image`.
    """
    with _decoding(f"a picture of {image.width}×{image.height}"):
        image.load()
        return _upright(_rgb(image), _orientation(image))


@contextlib.contextmanager
def _decoding(message: str) -> Iterator[None]:
    """A block in which any exception fails the picture."""
    try:
        yield
    except RecordError:
        raise
    except MemoryError:
        raise RecordError("decode", "no memory", f"while decoding {message}", permanent=False) from None
    except Exception as error:  # Pillow's readers raise nearly any class on bytes that were made to confuse them.
        raise RecordError("decode", _reason(error), _detail(error)) from error


def has_image_signature(data: bytes) -> bool:
    """Whether some bytes begin as a format that `open_image` reads; 18 of them tell."""
    return any(form.begins.match(data) for form in _FORMATS)


def raise_pixel_limit(max_pixels: int) -> None:
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


def _read(data: bytes, max_pixels: int, draft_size: DraftSize) -> tuple[Image.Image, object]:
    """Returns the RGB picture as it is stored, and its orientation; the decoded image is free when it is turned."""
    known = next((form for form in _FORMATS if form.begins.match(data)), None)
    if known is None:
        raise RecordError("decode", "unsupported", f"no known image format begins with {data[:8]!r}")
    checked = known.checked(data)
    with known.reader(BytesIO(checked), "") as image:
        _check_pixels(image, max_pixels)
        _draft(image, draft_size)
        image.load()
        if known.reader is PngImagePlugin.PngImageFile and png_chunks.has_16_bit_transparency(checked):
            _whiten_wide_key(image, checked)
        return _rgb(image), _orientation(image)


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
    """Returns a picture as RGB on white, made tile by tile so that what lies between takes little memory."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.width * image.height <= _TILE:
        return _flat(image, tags)
    flat = Image.new("RGB", image.size)
    for box in _tiles(image.size):
        flat.paste(_flat(image.crop(box), tags), box)
    return flat


def _from_cmyk(image: Image.Image) -> Image.Image:
    """Returns CMYK as RGB, ink times black rounded down: what `tf.io.decode_jpeg` has, so exported graphs do too."""
    *inks, black = (ImageChops.invert(band) for band in image.split())
    return Image.merge("RGB", [ImageChops.multiply(ink, black) for ink in inks])


def _tiles(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yields boxes of at most `_TILE` pixels that cover a picture."""
    columns = min(size[0], _TILE)
    rows = _TILE // columns
    for top in range(0, size[1], rows):
        for left in range(0, size[0], columns):
            yield left, top, min(left + columns, size[0]), min(top + rows, size[1])


def _flat(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    image = _eight_bits(image, tags)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else _from_cmyk(image) if image.mode == "CMYK" else image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def _eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    if image.mode == "I":
        raise RecordError("decode", "unsupported", "32-bit integer samples, which have no defined white")
    if image.mode != "F" and not image.mode.startswith("I;16"):
        return image
    samples = np.asarray(image)
    gray = _gray_of_float(samples) if image.mode == "F" else samples >> (tags.get(Tag.BitsPerSample, (16,))[0] - 8)
    if tags.get(Tag.PhotometricInterpretation) == 0:  # white is zero
        gray = 255 - gray
    if "transparency" in image.info:
        gray = np.where(samples == image.info["transparency"], 255, gray)
    return Image.fromarray(np.asarray(gray, np.uint8))


def _whiten_wide_key(image: Image.Image, data: bytes) -> None:
    """Makes the transparent pixels of a 16-bit colour PNG white, of which Pillow decodes one byte of a sample."""
    with PngImagePlugin.PngImageFile(BytesIO(data), "") as low_bytes:
        low_bytes.tile = [tile._replace(args="RGB;16L") for tile in low_bytes.tile]
        low_bytes.load()
        key = np.array(image.info.pop("transparency"))
        for box in _tiles(image.size):
            high, low = np.asarray(image.crop(box)), np.asarray(low_bytes.crop(box))
            is_key = ((high == key >> 8) & (low == key & 0xFF)).all(axis=-1)
            image.paste((255, 255, 255), box, Image.fromarray(is_key))


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
