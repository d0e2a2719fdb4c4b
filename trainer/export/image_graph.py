"""Encoded images to pixels inside a TensorFlow graph, as `features.images.decode` and `features.images.resizer`
make them.

    bytes → kind and size by header → decoded, transparency on white → upright by EXIF → resized → pixels

For graphs that are served where neither Pillow nor capt is. JPEG and PNG are read. An image that cannot be read costs
no other: tf.data leaves it out, and what is left out is known by its number.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from features.images.decode import MAX_PIXELS
from features.images.png_chunks import SIGNATURE
from features.images.resizer import Resizer
from trainer.export.image_headers import jpeg_header, orientation, png_header

_EMPTY, _UNSUPPORTED, _TOO_LARGE, _CORRUPT, _MISREAD = range(1, 6)
PROBLEMS = (
    "",
    "empty",
    "unsupported: neither JPEG nor PNG",
    "too large",
    "corrupt or truncated",
    "unsupported: a PNG with EXIF as text or compressed XMP",
)

_JPEG = b"\xff\xd8\xff"
_ADOBE = b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\0"  # the marker of CMYK
# Pillow resamples 8-bit samples with coefficients in fixed point (its Resample.c).
_FIXED = float(1 << 22)


def read_images(data: Any, fitting: Resizer) -> tuple[Any, Any]:
    """The pixels of a batch of encoded images.

    Args:
        data: string [N]. JPEG or PNG each.
        fitting: Fitting. How they are brought to a network's size.

    Returns:
        Pixels [N, height, width, 3] of the fitting's dtype, black where there is a problem, and problems int32 [N],
        indices of `PROBLEMS`.
    """
    count = tf.shape(data)[0]
    blank = (tf.constant(-1), tf.constant(_CORRUPT), tf.zeros((fitting.height, fitting.width, 3), fitting.dtype))

    def read(number: Any) -> Any:
        problem, pixels = _read(tf.gather(data, number), fitting)
        return number, problem, pixels

    images = tf.data.Dataset.range(tf.cast(count, tf.int64), output_type=tf.int32)
    images = images.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    whole = tf.data.Dataset.from_tensors(blank).concatenate(images).batch(tf.cast(count, tf.int64) + 1)
    numbers, problems, pixels = whole.get_single_element()
    place = tf.scatter_nd(numbers[1:, tf.newaxis], tf.range(1, tf.shape(numbers)[0]), count[tf.newaxis])
    return tf.gather(pixels, place), tf.gather(problems, place)


def _read(data: Any, fitting: Resizer) -> tuple[Any, Any]:
    problem = _problem(data)
    black = tf.zeros((fitting.height, fitting.width, 3), fitting.dtype)

    def read(decode: Any) -> Any:
        misread, image, turn = decode(data)
        return tf.where(misread, _MISREAD, 0), tf.where(misread, black, _fit(_upright(image, turn), fitting))

    problem, pixels = tf.case(
        [(problem > 0, lambda: (problem, black)), (_begins(data, SIGNATURE), lambda: read(_png))],
        lambda: read(_jpeg),
    )
    return problem, tf.ensure_shape(pixels, (fitting.height, fitting.width, 3))


# === Decoding ===


def _problem(data: Any) -> Any:
    """What the header tells against an image: int32, 0 for nothing."""
    is_jpeg, is_png = _begins(data, _JPEG), _begins(data, SIGNATURE)
    size = tf.case(
        [(is_png, lambda: _png_size(data)), (is_jpeg, lambda: tf.image.extract_jpeg_shape(data)[:2])],
        lambda: tf.zeros(2, tf.int32),
    )
    is_large = tf.reduce_prod(tf.cast(size, tf.int64)) > MAX_PIXELS
    of_header = tf.where(is_large, _TOO_LARGE, 0)
    of_kind = tf.where(is_jpeg | is_png, of_header, _UNSUPPORTED)
    return tf.where(tf.strings.length(data) > 0, of_kind, _EMPTY)


def _begins(data: Any, start: bytes) -> Any:
    return tf.equal(tf.strings.substr(data, 0, len(start)), tf.constant(start))


def _png_size(data: Any) -> Any:
    """Width and height: the first eight bytes of the header chunk (PNG specification, section 11.2.2)."""
    header = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
    return tf.reshape(header, (2,))


def _png(data: Any) -> tuple[Any, Any, Any]:
    """Whether a PNG is misread, its pixels uint8 [H, W, 3], and its orientation."""
    header = png_header(data)
    samples = tf.cast(tf.io.decode_png(data, channels=4), tf.int32)
    # What TensorFlow makes up for alpha is white of the file's depth, not of 8 bits.
    alpha = tf.where(header.has_alpha, samples[..., 3:], 255)
    # Rounded to the nearest, as Pillow composites.
    pixels = tf.cast((samples[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)
    return header.is_misread, pixels, orientation(header.exif, header.xmp)


def _jpeg(data: Any) -> tuple[Any, Any, Any]:
    """As `_png` has it."""
    header = jpeg_header(data)
    # CMYK is inverted, as Adobe writes it; TensorFlow takes it so only where the file says that it is Adobe's.
    rest = tf.strings.substr(data, 2, tf.strings.length(data))
    marked = tf.cond(
        header.is_unmarked_cmyk, lambda: tf.strings.join([tf.constant(_JPEG[:2] + _ADOBE), rest]), lambda: data
    )
    # The method that Pillow uses; TensorFlow's own default is faster and a level or two off.
    pixels = tf.io.decode_jpeg(marked, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.constant(False), pixels, orientation(header.exif, header.xmp)


def _upright(image: Any, orientation: Any) -> Any:
    flipped, turned = tf.image.flip_left_right, tf.image.rot90
    turns: Sequence[Any] = (
        lambda: image,
        lambda: flipped(image),
        lambda: turned(image, 2),
        lambda: tf.image.flip_up_down(image),
        lambda: tf.transpose(image, (1, 0, 2)),
        lambda: turned(image, 3),
        lambda: turned(tf.transpose(image, (1, 0, 2)), 2),
        lambda: turned(image, 1),
    )
    upright = tf.switch_case(tf.where((orientation > 0) & (orientation < 9), orientation - 1, 0), turns)
    return tf.ensure_shape(upright, (None, None, 3))


# === Resizing ===


def _fit(image: Any, fitting: Resizer) -> Any:
    shape = tf.shape(image)
    rows, columns = _resized(shape[0], shape[1], fitting)
    kept = (tf.minimum(rows, fitting.height), tf.minimum(columns, fitting.width))
    first = (tf.maximum(0, rows - fitting.height) // 2, tf.maximum(0, columns - fitting.width) // 2)
    resize = _by_tensorflow if fitting.method == "tf-bilinear" else _by_pillow
    pixels = resize(image, (shape[0], rows, first[0], kept[0]), (shape[1], columns, first[1], kept[1]))
    before = ((fitting.height - kept[0]) // 2, (fitting.width - kept[1]) // 2)
    black = [
        (before[0], fitting.height - kept[0] - before[0]),
        (before[1], fitting.width - kept[1] - before[1]),
        (0, 0),
    ]
    return tf.pad(pixels, black)


def _resized(height: Any, width: Any, fitting: Resizer) -> tuple[Any, Any]:
    """Rows and columns of the resized picture, before anything is cut off or added, as `Fitting` has them."""
    if fitting.mode == "stretch":
        return tf.constant(fitting.height), tf.constant(fitting.width)
    if fitting.shortest_edge is not None:
        rows = columns = fitting.shortest_edge
        is_by_rows = height <= width
    else:
        rows, columns = fitting.height, fitting.width
        is_wider = width * fitting.height >= height * fitting.width
        is_by_rows = tf.equal(is_wider, fitting.mode == "crop")
    by_rows = (tf.constant(rows), tf.maximum(1, (2 * rows * width + height) // (2 * height)))
    by_columns = (tf.maximum(1, (2 * columns * height + width) // (2 * width)), tf.constant(columns))
    return tf.where(is_by_rows, by_rows[0], by_columns[0]), tf.where(is_by_rows, by_rows[1], by_columns[1])


def _by_pillow(image: Any, rows: Any, columns: Any) -> Any:
    """What Pillow's bilinear resize makes, level by level: along the rows, rounded, then across them, rounded."""
    lines = tf.einsum("ow,hwc->hoc", _coefficients(*columns), tf.cast(image, tf.float64))
    lines = tf.floor((lines + _FIXED / 2) / _FIXED)
    pixels = tf.einsum("oh,hwc->owc", _coefficients(*rows), tf.clip_by_value(lines, 0.0, 255.0))
    return tf.cast(tf.clip_by_value(tf.floor((pixels + _FIXED / 2) / _FIXED), 0.0, 255.0), tf.uint8)


def _coefficients(source: Any, resized: Any, first: Any, kept: Any) -> Any:
    """float64 [kept, source]: how much each source pixel counts for each kept one, whole numbers that sum to 2²²."""
    source, resized, first, wanted = (tf.cast(value, tf.float64) for value in (source, resized, first, kept))
    # Pillow keeps the box, and takes its extent, in single precision.
    begin, end = (tf.cast(at * source / resized, tf.float32) for at in (first, first + wanted))
    scale = tf.cast(end - begin, tf.float64) / wanted
    begin = tf.cast(begin, tf.float64)
    support = tf.maximum(scale, 1.0)
    center = (begin + (tf.range(wanted, dtype=tf.float64) + 0.5) * scale)[:, tf.newaxis]
    place = tf.range(source, dtype=tf.float64)[tf.newaxis]
    inside = (place >= tf.floor(center - support + 0.5)) & (place < tf.floor(center + support + 0.5))
    weight = tf.where(inside, tf.maximum(1.0 - tf.abs((place - center + 0.5) / support), 0.0), 0.0)
    return tf.floor(weight / tf.reduce_sum(weight, axis=1, keepdims=True) * _FIXED + 0.5)


def _by_tensorflow(image: Any, rows: Any, columns: Any) -> Any:
    """What `tf.image.resize` makes, of which the kept part is computed."""
    upper, lower, down = _neighbours(*rows)
    left, right, across = _neighbours(*columns)
    image = tf.cast(image, tf.float32)
    above, below = tf.gather(image, upper), tf.gather(image, lower)
    share = across[tf.newaxis, :, tf.newaxis]
    lines = [
        tf.gather(line, left, axis=1) + (tf.gather(line, right, axis=1) - tf.gather(line, left, axis=1)) * share
        for line in (above, below)
    ]
    return lines[0] + (lines[1] - lines[0]) * down[:, tf.newaxis, tf.newaxis]


def _neighbours(source: Any, resized: Any, first: Any, kept: Any) -> tuple[Any, Any, Any]:
    """For each kept pixel the two source pixels that it lies between, and how far it is from the first, 0…1."""
    scale = tf.cast(source, tf.float32) / tf.cast(resized, tf.float32)
    at = (tf.cast(tf.range(first, first + kept), tf.float32) + 0.5) * scale - 0.5
    before = tf.floor(at)
    after = tf.minimum(tf.cast(tf.math.ceil(at), tf.int32), source - 1)
    return tf.cast(tf.maximum(before, 0), tf.int32), after, at - before
