"""Decodes and resizes images inside a TensorFlow graph, with the results of `features.images`.

    bytes → format and size from the header → decode, composite on white → rotate by EXIF → resize → pixels

Served graphs need neither Pillow nor capt. They read JPEG and PNG. An unreadable image does not affect the others:
tf.data drops it, and its number shows which image is missing.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from features.images.png_chunks import SIGNATURE
from features.images.resize import Resizer
from schemas.defaults import MAX_IMAGE_PIXELS
from trainer.export.image_headers import has_bytes, read_jpeg_header, read_png_header

_EMPTY, _UNSUPPORTED, _TOO_LARGE, _CORRUPT, _UNSUPPORTED_PNG = range(1, 6)
PROBLEMS = (
    "",
    "empty",
    "unsupported: neither JPEG nor PNG",
    "too large",
    "corrupt or truncated",
    "unsupported: a PNG with EXIF as text or compressed XMP",
)

_JPEG = b"\xff\xd8\xff"
_ADOBE = b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\0"  # Adobe's marker of CMYK
# Pillow resamples 8-bit images with fixed-point coefficients (Resample.c).
_FIXED = float(1 << 22)


def read_images(data: Any, resizer: Resizer) -> tuple[Any, Any]:
    """Decodes JPEG or PNG files, string [N], and resizes them to the extractor's input size.

    Returns:
        Pixels [N, height, width, 3] in the resizer's dtype, black for unreadable images, and indices of `PROBLEMS`,
        int32 [N].
    """
    count = tf.shape(data)[0]
    blank = (tf.constant(-1), tf.constant(_CORRUPT), tf.zeros((resizer.height, resizer.width, 3), resizer.dtype))

    def read(number: Any) -> Any:
        problem, pixels = _read(tf.gather(data, number), resizer)
        return number, problem, pixels

    images = tf.data.Dataset.range(tf.cast(count, tf.int64), output_type=tf.int32)
    images = images.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    whole = tf.data.Dataset.from_tensors(blank).concatenate(images).batch(tf.cast(count, tf.int64) + 1)
    numbers, problems, pixels = whole.get_single_element()
    position = tf.scatter_nd(numbers[1:, tf.newaxis], tf.range(1, tf.shape(numbers)[0]), count[tf.newaxis])
    return tf.gather(pixels, position), tf.gather(problems, position)


def _read(data: Any, resizer: Resizer) -> tuple[Any, Any]:
    problem = _problem(data)
    black = tf.zeros((resizer.height, resizer.width, 3), resizer.dtype)

    def read(decode: Any) -> Any:
        is_unsupported, image, orientation = decode(data)
        resized = _resize(_rotate(image, orientation), resizer)
        return tf.where(is_unsupported, _UNSUPPORTED_PNG, 0), tf.where(is_unsupported, black, resized)

    problem, pixels = tf.case(
        [(problem > 0, lambda: (problem, black)), (has_bytes(data, 0, SIGNATURE), lambda: read(_png))],
        lambda: read(_jpeg),
    )
    return problem, tf.ensure_shape(pixels, (resizer.height, resizer.width, 3))


# === Decoding ===


def _problem(data: Any) -> Any:
    """Returns the index of the problem that the header shows, int32; 0 for none."""
    is_jpeg, is_png = has_bytes(data, 0, _JPEG), has_bytes(data, 0, SIGNATURE)

    def png_size() -> Any:
        # Width and height are the first eight bytes of the header chunk (PNG specification, section 11.2.2).
        return tf.reshape(tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False), (2,))

    size = tf.case(
        [(is_png, png_size), (is_jpeg, lambda: tf.image.extract_jpeg_shape(data)[:2])],
        lambda: tf.zeros(2, tf.int32),
    )
    is_large = tf.reduce_prod(tf.cast(size, tf.int64)) > MAX_IMAGE_PIXELS
    problem = tf.where(is_jpeg | is_png, tf.where(is_large, _TOO_LARGE, 0), _UNSUPPORTED)
    return tf.where(tf.strings.length(data) > 0, problem, _EMPTY)


def _png(data: Any) -> tuple[Any, Any, Any]:
    """Returns whether a PNG is unsupported, its pixels uint8 [H, W, 3], and its orientation."""
    has_alpha, is_unsupported, orientation = read_png_header(data)
    samples = tf.cast(tf.io.decode_png(data, channels=4), tf.int32)
    # The alpha that TensorFlow adds has the maximum of the file's bit depth, not of 8 bits.
    alpha = tf.where(has_alpha, samples[..., 3:], 255)
    # Pillow rounds to the nearest integer.
    pixels = tf.cast((samples[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)
    return is_unsupported, pixels, orientation


def _jpeg(data: Any) -> tuple[Any, Any, Any]:
    """Returns the same values as `_png`, for a JPEG."""
    is_unmarked_cmyk, orientation = read_jpeg_header(data)
    # CMYK is inverted, as Adobe writes it. TensorFlow inverts it only if the file has Adobe's marker.
    rest = tf.strings.substr(data, 2, tf.strings.length(data))
    marked = tf.cond(is_unmarked_cmyk, lambda: tf.strings.join([tf.constant(_JPEG[:2] + _ADOBE), rest]), lambda: data)
    # The method of Pillow. TensorFlow's default is faster and differs by one or two levels.
    pixels = tf.io.decode_jpeg(marked, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.constant(False), pixels, orientation


def _rotate(image: Any, orientation: Any) -> Any:
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
    rotated = tf.switch_case(tf.where((orientation > 0) & (orientation < 9), orientation - 1, 0), turns)
    return tf.ensure_shape(rotated, (None, None, 3))


# === Resizing ===


def _resize(image: Any, resizer: Resizer) -> Any:
    shape = tf.shape(image)
    rows, columns = _compute_size(shape[0], shape[1], resizer)
    kept = (tf.minimum(rows, resizer.height), tf.minimum(columns, resizer.width))
    first = (tf.maximum(0, rows - resizer.height) // 2, tf.maximum(0, columns - resizer.width) // 2)
    resize = _by_tensorflow if resizer.method == "tf-bilinear" else _by_pillow
    pixels = resize(image, (shape[0], rows, first[0], kept[0]), (shape[1], columns, first[1], kept[1]))
    before = ((resizer.height - kept[0]) // 2, (resizer.width - kept[1]) // 2)
    after = (resizer.height - kept[0] - before[0], resizer.width - kept[1] - before[1])
    padding = [(before[0], after[0]), (before[1], after[1])]
    padded = tf.pad(pixels, [*padding, (0, 0)])
    if resizer.mode != "pad-border":
        return padded
    is_padding = tf.pad(tf.zeros((kept[0], kept[1]), tf.bool), padding, constant_values=True)
    return tf.where(is_padding[..., tf.newaxis], tf.cast(_measure_border_color(image), padded.dtype), padded)


def _measure_border_color(image: Any) -> Any:
    """Returns the color of `features.images.resize.measure_border_color`, uint8 [3]."""
    border = tf.maximum(1, tf.minimum(tf.shape(image)[0], tf.shape(image)[1]) // 8)
    strips = (image[:border], image[-border:], image[:, :border], image[:, -border:])
    colors = tf.sort(tf.concat([tf.reshape(strip, (-1, 3)) for strip in strips], axis=0), axis=0)
    return colors[(tf.shape(colors)[0] - 1) // 2]


def _compute_size(height: Any, width: Any, resizer: Resizer) -> tuple[Any, Any]:
    """Returns rows and columns of the resized image before cropping and padding, as `Resizer` computes them."""
    if resizer.mode == "stretch":
        return tf.constant(resizer.height), tf.constant(resizer.width)
    if resizer.shortest_edge is not None:
        rows = columns = resizer.shortest_edge
        is_by_rows = height <= width
    else:
        rows, columns = resizer.height, resizer.width
        is_wider = width * resizer.height >= height * resizer.width
        is_by_rows = tf.equal(is_wider, resizer.mode == "crop")
    by_rows = (tf.constant(rows), tf.maximum(1, (2 * rows * width + height) // (2 * height)))
    by_columns = (tf.maximum(1, (2 * columns * height + width) // (2 * width)), tf.constant(columns))
    return tf.where(is_by_rows, by_rows[0], by_columns[0]), tf.where(is_by_rows, by_rows[1], by_columns[1])


def _by_pillow(image: Any, rows: Any, columns: Any) -> Any:
    """Resizes as Pillow's bilinear filter, exactly: along the rows and rounded, then along the columns and rounded."""
    lines = tf.einsum("ow,hwc->hoc", _coefficients(*columns), tf.cast(image, tf.float64))
    lines = tf.floor((lines + _FIXED / 2) / _FIXED)
    pixels = tf.einsum("oh,hwc->owc", _coefficients(*rows), tf.clip_by_value(lines, 0.0, 255.0))
    return tf.cast(tf.clip_by_value(tf.floor((pixels + _FIXED / 2) / _FIXED), 0.0, 255.0), tf.uint8)


def _coefficients(source: Any, resized: Any, first: Any, kept: Any) -> Any:
    """Returns the weights of source pixels per output pixel, float64 [kept, source]: integers whose sum is 2²²."""
    source, resized, first, wanted = (tf.cast(value, tf.float64) for value in (source, resized, first, kept))
    # Pillow stores the box and computes its extent in single precision.
    begin, end = (tf.cast(at * source / resized, tf.float32) for at in (first, first + wanted))
    scale = tf.cast(end - begin, tf.float64) / wanted
    begin = tf.cast(begin, tf.float64)
    support = tf.maximum(scale, 1.0)
    center = (begin + (tf.range(wanted, dtype=tf.float64) + 0.5) * scale)[:, tf.newaxis]
    position = tf.range(source, dtype=tf.float64)[tf.newaxis]
    inside = (position >= tf.floor(center - support + 0.5)) & (position < tf.floor(center + support + 0.5))
    weight = tf.where(inside, tf.maximum(1.0 - tf.abs((position - center + 0.5) / support), 0.0), 0.0)
    return tf.floor(weight / tf.reduce_sum(weight, axis=1, keepdims=True) * _FIXED + 0.5)


def _by_tensorflow(image: Any, rows: Any, columns: Any) -> Any:
    """Computes the kept part of the result of `tf.image.resize`."""
    upper, lower, down = _find_neighbors(*rows)
    left, right, across = _find_neighbors(*columns)
    image = tf.cast(image, tf.float32)
    above, below = tf.gather(image, upper), tf.gather(image, lower)
    fraction = across[tf.newaxis, :, tf.newaxis]
    lines = [
        tf.gather(line, left, axis=1) + (tf.gather(line, right, axis=1) - tf.gather(line, left, axis=1)) * fraction
        for line in (above, below)
    ]
    return lines[0] + (lines[1] - lines[0]) * down[:, tf.newaxis, tf.newaxis]


def _find_neighbors(source: Any, resized: Any, first: Any, kept: Any) -> tuple[Any, Any, Any]:
    """Returns the two source pixels around each kept pixel, and its distance from the first, 0 to 1."""
    scale = tf.cast(source, tf.float32) / tf.cast(resized, tf.float32)
    at = (tf.cast(tf.range(first, first + kept), tf.float32) + 0.5) * scale - 0.5
    before = tf.floor(at)
    after = tf.minimum(tf.cast(tf.math.ceil(at), tf.int32), source - 1)
    return tf.cast(tf.maximum(before, 0), tf.int32), after, at - before
