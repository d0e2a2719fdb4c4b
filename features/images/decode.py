"""Decodes images of many formats to upright RGB pixels of an extractor's input size.

bytes → format by signature → size check by header → decode → RGB on white → upright by EXIF → resize

The table config names these rules (`rgb-exif-1` in `schemas.table_config`). A changed rule needs a new name there.
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
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)
from PIL.ExifTags import Base as Tag

from features.images import jpeg2000, netpbm, png_chunks
from features.images.boxes import check_image_boxes
from features.images.errors import truncation_error
from features.images.heif import open_heif
from features.images.resize import Pixels, Resizer
from schemas.defaults import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from schemas.errors import RecordError

# Pillow warns of invalid metadata that affects no pixel, and of sizes that are checked here. `warnings.catch_warnings`
# is not thread-safe, so Pillow's modules are silenced once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Callers decode images in parallel. Each thread of libavif needs memory of its own.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# libtiff prints errors to standard error, while Pillow raises its own error for the same image. A shared library
# exports the functions of the libraries that it links to, except on Windows.
_set_libtiff_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
if _set_libtiff_handler:
    _set_libtiff_handler.restype, _set_libtiff_handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    _set_libtiff_handler(None)

DraftSize = Callable[[int, int], tuple[int, int] | None]


@dataclass(frozen=True)
class ImageLimits:
    """Limits of an image's declared width times height, and of its encoded bytes, unpacked if it is in an archive.

    Limits depend on the machine and do not affect a row, so they are not part of the table config. A decoded pixel
    takes four bytes, and up to three images of that size exist while transparency is replaced by white. The decoder of
    JPEG 2000 takes up to 25 bytes per pixel of an image that is not divided into tiles.
    """

    pixels: int = MAX_IMAGE_PIXELS
    bytes: int = MAX_IMAGE_BYTES

    def allows_retry(self, reason: str, detail: str) -> bool:
        """Returns whether a recorded failure was caused by a lower limit, so that a retry may succeed."""
        # Details of `_read` and of Pillow.
        match = re.match(r"(\d+)×(\d+)|Image size \((\d+) pixels\)", detail)
        if reason != "too large" or not match:
            return False
        width, height, pixels = match.groups()
        return int(pixels or int(width) * int(height)) <= self.pixels


def _check_webp(data: bytes) -> bytes:
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise truncation_error(data)
    return data


def _check_tiff(data: bytes) -> bytes:
    """Checks that the first directory and its tables are complete (TIFF 6.0, section 2; BigTIFF).

    Pillow reports a truncated directory as unsupported.
    """
    order = "<" if data[:2] == b"II" else ">"
    at, word, counter, inline = (8, "Q", "Q", 8) if b"+" in data[2:4] else (4, "I", "H", 4)
    entry = struct.Struct(f"{order}HH{word}{word}")
    try:
        (start,) = struct.unpack_from(order + word, data, at)
        if start > len(data):
            raise truncation_error(data)
        (entries,) = struct.unpack_from(order + counter, data, start)
        first = start + struct.calcsize(order + counter)
        for position in range(first, first + entries * entry.size, entry.size):
            tag, kind, count, value = entry.unpack_from(data, position)
            size = count * _TIFF_SIZES.get(kind, 1)
            if tag in _TIFF_TABLES and size > inline and value + size > len(data):
                raise truncation_error(data)
    except struct.error:
        raise truncation_error(data) from None
    return data


_TIFF_SIZES = {3: 2, 4: 4, 16: 8}  # bytes of a SHORT, LONG, LONG8; the tables below have no other types but bytes
_TIFF_TABLES = frozenset(
    (
        *(Tag.BitsPerSample, Tag.StripOffsets, Tag.StripByteCounts, Tag.ColorMap),
        *(Tag.TileOffsets, Tag.TileByteCounts, Tag.JPEGTables),
    )
)


@dataclass(frozen=True)
class _Format:
    """A supported format. Without a check, which returns the bytes to decode, the reader detects truncation itself.

    `suffix` is the usual one of its files.
    """

    suffix: str
    signature: re.Pattern[bytes]
    # `Image.open` would apply its process-wide pixel limit first.
    reader: Callable[[BytesIO, str], ImageFile.ImageFile]
    check: Callable[[bytes], bytes] = bytes


def _open_avif(file: BytesIO, name: str) -> ImageFile.ImageFile:
    """Opens an AVIF. Pillow sets the EXIF orientation to that of the container, the valid one (ISO/IEC 23000-22)."""
    image = AvifImagePlugin.AvifImageFile(file, name)
    image.info.pop("xmp", None)
    return image


# Text can start with "BM", too. The header length that follows has few valid values.
_BMP = re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)
_JPEG2000 = re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n")
# The main brand, or that of any HEIF with AVIF among the compatible brands.
_AVIF = re.compile(rb".{4}ftyp(?:avi[fs]|(?:mif1|msf1|miaf).{4}(?:.{4}){0,7}?avi[fs])", re.DOTALL)
_HEIF = re.compile(rb".{4}ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1|miaf)", re.DOTALL)
_FORMATS = (
    _Format("jpg", re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    _Format("png", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile, png_chunks.select_chunks),
    _Format("webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile, _check_webp),
    _Format("gif", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    _Format("bmp", _BMP, BmpImagePlugin.BmpImageFile),
    _Format("tif", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile, _check_tiff),
    _Format("jp2", _JPEG2000, Jpeg2KImagePlugin.Jpeg2KImageFile, jpeg2000.check_codestream),
    _Format("ppm", netpbm.SIGNATURE, PpmImagePlugin.PpmImageFile, netpbm.convert_to_bytes),
    _Format("avif", _AVIF, _open_avif, check_image_boxes),
    _Format("heic", _HEIF, open_heif, check_image_boxes),
)

_TILE_PIXELS = 1 << 20

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_UNSUPPORTED = r"unsupported|not supported|unknown|cannot handle|not available|not installed"
_REASONS = (
    ("truncated", re.compile(r"truncat|end of file|not enough image data", re.IGNORECASE)),
    ("unsupported", re.compile(_UNSUPPORTED, re.IGNORECASE)),
)


def decode(data: bytes, resizer: Resizer, *, max_pixels: int = MAX_IMAGE_PIXELS) -> Pixels:
    """Decodes and resizes an image to [height, width, 3] of the resizer's dtype, RGB in 0…255, in memory of its own.

    Raises:
        RecordError: As raised by `open_image`.
    """
    image = open_image(data, max_pixels=max_pixels, draft_size=resizer.compute_draft_size)
    try:
        return resizer(image)
    except MemoryError:
        size = f"{image.width}×{image.height}"
        raise RecordError("decode", "no memory", f"while resizing an image of {size}", permanent=False) from None


def open_image(
    data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS, draft_size: DraftSize = lambda width, height: None
) -> Image.Image:
    """Decodes an image. A JPEG can be decoded at a half, a quarter or an eighth of its size.

    The first bytes determine the format, not the file name: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PBM, PGM
    or PPM, and HEIC with the extra `heif`. Only the first frame or page is decoded. Transparent pixels become white,
    because the colors below the alpha channel are arbitrary. CMYK is converted without its profile, and inverted in
    JPEG as Adobe writes it. 16-bit samples keep their high byte; those of PGM and PPM are scaled to the nearest of 256
    levels. Floating-point samples are black at 0 and white at 1. The EXIF orientation (CIPA DC-008, tag 274), or else
    that of XMP, is applied; an unreadable orientation is ignored. AVIF and HEIC are turned by their container alone.

    Args:
        data: An encoded image.
        max_pixels: Maximum number of pixels by the image's header, checked before decoding. Pillow's
            `Image.MAX_IMAGE_PIXELS` limits TIFF and GIF, too; `raise_pixel_limit` raises it.
        draft_size: Maps the upright image's width and height to the required ones. A JPEG is decoded at the smallest
            scale of libjpeg that has them. None requires the full size.

    Returns:
        An upright image of mode RGB.

    Raises:
        RecordError: Stage `decode` with reason `empty`, `unsupported` (another format, or samples without a defined
            white), `truncated`, `corrupt`, `too large`, or `no memory` (not permanent). A truncated image is never
            returned in part. Corrupt pixels are detected only by checksums (PNG, deflated TIFF) or by the decoder.
    """
    if not data:
        raise RecordError("decode", "empty", "zero bytes")
    with _convert_errors(f"{len(data)} bytes"):
        return _turn_upright(*_read(data, max_pixels, draft_size))


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to an upright image of mode RGB by the rules of `open_image`; raises as it does."""
    with _convert_errors(f"an image of {image.width}×{image.height}"):
        image.load()
        return _turn_upright(_flatten_tiles(image), _read_orientation(image))


@contextlib.contextmanager
def _convert_errors(message: str) -> Iterator[None]:
    """Converts every exception within a block to a RecordError."""
    try:
        yield
    except RecordError:
        raise
    except MemoryError:
        raise RecordError("decode", "no memory", f"while decoding {message}", permanent=False) from None
    except Exception as error:  # Pillow's readers raise errors of many classes for hostile bytes.
        # The readers wrap KeyErrors and IndexErrors, whose text can be a number.
        detail = str(error) if any(map(str.isalpha, str(error))) else repr(error.__cause__ or error)
        raise RecordError("decode", _find_reason(error), detail) from error


def has_image_signature(data: bytes) -> bool:
    """Returns whether at least 18 bytes start with the signature of a format that `open_image` reads."""
    return _find_format(data) is not None


def find_suffix(data: bytes) -> str:
    """Returns the usual suffix of an image by its first bytes, such as `jpg`; empty for an unknown format."""
    known = _find_format(data)
    return known.suffix if known else ""


def _find_format(data: bytes) -> _Format | None:
    return next((known for known in _FORMATS if known.signature.match(data)), None)


def raise_pixel_limit(max_pixels: int) -> None:
    """Raises Pillow's process-wide limit for TIFF and GIF to at least `max_pixels`."""
    if Image.MAX_IMAGE_PIXELS is not None:
        # Pillow refuses images with more than twice its limit.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-max_pixels // 2))


def encode_thumbnail(data: bytes, side: int) -> bytes:
    """Encodes an image as a JPEG of at most `side` × `side` pixels, not enlarged; raises as `open_image`."""
    image = open_image(data)
    image.thumbnail((side, side))
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def _read(data: bytes, max_pixels: int, draft_size: DraftSize) -> tuple[Image.Image, object]:
    """Returns the RGB image as stored, and its orientation. The decoded image is freed before it is rotated."""
    known = _find_format(data)
    if known is None:
        raise RecordError("decode", "unsupported", f"no known image format starts with {data[:8]!r}")
    checked = known.check(data)
    with known.reader(BytesIO(checked), "") as image:
        if image.width * image.height > max_pixels:
            raise RecordError("decode", "too large", f"{image.width}×{image.height}, more than {max_pixels} pixels")
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            is_rotated = _read_orientation(image) in (5, 6, 7, 8)
            if required := draft_size(*(image.size[::-1] if is_rotated else image.size)):
                image.draft(None, required[::-1] if is_rotated else required)
        image.load()
        if known.reader is PngImagePlugin.PngImageFile and png_chunks.has_16_bit_transparency(checked):
            _whiten_16_bit_transparency(image, checked)
        return _flatten_tiles(image), _read_orientation(image)


def _flatten_tiles(image: Image.Image) -> Image.Image:
    """Converts an image to RGB on white, tile by tile to save memory."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.width * image.height <= _TILE_PIXELS:
        return _flatten(image, tags)
    flat = Image.new("RGB", image.size)
    for box in _tiles(image.size):
        flat.paste(_flatten(image.crop(box), tags), box)
    return flat


def _tiles(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yields boxes of at most `_TILE_PIXELS` pixels that cover an image."""
    columns = min(size[0], _TILE_PIXELS)
    rows = _TILE_PIXELS // columns
    for top in range(0, size[1], rows):
        for left in range(0, size[0], columns):
            yield left, top, min(left + columns, size[0]), min(top + rows, size[1])


def _flatten(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    image = _to_eight_bits(image, tags)
    if image.mode == "CMYK" and not image.has_transparency_data:
        # Ink times black, rounded down, is equal to `tf.io.decode_jpeg` in exported graphs.
        *inks, black = (ImageChops.invert(band) for band in image.split())
        return Image.merge("RGB", [ImageChops.multiply(ink, black) for ink in inks])
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _to_eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    if image.mode == "I":
        raise RecordError("decode", "unsupported", "32-bit integer samples, which have no defined white")
    if image.mode != "F" and not image.mode.startswith("I;16"):
        return image
    samples = np.asarray(image)
    if image.mode == "F":
        slack = 1 / 255  # resampling can overshoot
        if not np.all((samples >= -slack) & (samples <= 1 + slack)):
            raise RecordError("decode", "unsupported", "floating-point samples outside 0…1")
        gray = np.rint(np.clip(samples, 0, 1) * 255)
    else:
        gray = samples >> (tags.get(Tag.BitsPerSample, (16,))[0] - 8)
    if tags.get(Tag.PhotometricInterpretation) == 0:  # white is zero
        gray = 255 - gray
    if "transparency" in image.info:
        gray = np.where(samples == image.info["transparency"], 255, gray)
    return Image.fromarray(np.asarray(gray, np.uint8))


def _whiten_16_bit_transparency(image: Image.Image, data: bytes) -> None:
    """Makes the transparent pixels of a 16-bit color PNG white. Pillow decodes only the high bytes of its samples."""
    with PngImagePlugin.PngImageFile(BytesIO(data), "") as low_bytes:
        low_bytes.tile = [tile._replace(args="RGB;16L") for tile in low_bytes.tile]
        low_bytes.load()
        key = np.array(image.info.pop("transparency"))
        for box in _tiles(image.size):
            high, low = np.asarray(image.crop(box)), np.asarray(low_bytes.crop(box))
            is_key = ((high == key >> 8) & (low == key & 0xFF)).all(axis=-1)
            image.paste((255, 255, 255), box, Image.fromarray(is_key))


def _read_orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(Tag.Orientation)
    except Exception:  # Corrupt metadata must not fail the image.
        return None


def _turn_upright(image: Image.Image, orientation: object) -> Image.Image:
    transpose = _TRANSPOSES.get(orientation) if isinstance(orientation, int) else None
    return image if transpose is None else image.transpose(transpose)


def _find_reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "too large"
    for reason, pattern in _REASONS:
        if pattern.search(str(error)):
            return reason
    # Readers raise these errors if the bytes end within a header.
    ends = (EOFError, IndexError, struct.error)
    return "truncated" if isinstance(error, ends) or isinstance(error.__cause__, ends) else "corrupt"
