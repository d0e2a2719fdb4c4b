"""Encoded images to pixels inside a TensorFlow graph, as `features.images` and `features.fitting` make them.

    bytes → kind and size by header → decoded, transparency on white → upright by EXIF → resized → pixels

For graphs that are served where neither Pillow nor capt is. JPEG and PNG are read. An image that cannot be read costs
no other: tf.data leaves it out, and what is left out is known by its number.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from features.fitting import Fitting
from features.images import MAX_PIXELS

_EMPTY, _UNSUPPORTED, _TOO_LARGE, _CORRUPT = range(1, 5)
PROBLEMS = ("", "empty", "unsupported: neither JPEG nor PNG", "too large", "corrupt or truncated")

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# EXIF comes before the pixels: a JPEG segment has 65,533 bytes at most, and few come before it.
_HEADER_BYTES = 1 << 18
_ENTRIES = 64
_ORIENTATION = 274
# Pillow resamples 8-bit samples with coefficients in fixed point (its Resample.c).
_FIXED = float(1 << 22)


def read_images(data: Any, fitting: Fitting) -> tuple[Any, Any]:
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


def _read(data: Any, fitting: Fitting) -> tuple[Any, Any]:
    problem = _problem(data)
    black = tf.zeros((fitting.height, fitting.width, 3), fitting.dtype)
    pixels = tf.cond(problem > 0, lambda: black, lambda: _fit(_upright(_decoded(data), _orientation(data)), fitting))
    return problem, tf.ensure_shape(pixels, (fitting.height, fitting.width, 3))


# === Decoding ===


def _problem(data: Any) -> Any:
    """What the header tells against an image: int32, 0 for nothing."""
    is_jpeg, is_png = _begins(data, _JPEG), _begins(data, _PNG)
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


def _lacks_alpha(data: Any) -> Any:
    """Whether no chunk before the pixels of a PNG tells transparency (PNG specification, sections 5.3 and 11.3.1)."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, _HEADER_BYTES), tf.uint8), tf.int32)
    end = tf.shape(header)[0] - 8

    def is_kind(at: Any, kind: bytes) -> Any:
        return tf.reduce_all(tf.equal(header[at + 4 : at + 8], list(kind)))

    def follow(at: Any) -> Any:
        size = tf.reduce_sum(header[at : at + 4] * [1 << 24, 1 << 16, 1 << 8, 1])
        return (at + 12 + tf.clip_by_value(size, 0, _HEADER_BYTES),)

    def goes_on(at: Any) -> Any:
        return tf.cond(at <= end, lambda: ~(is_kind(at, b"IDAT") | is_kind(at, b"tRNS")), lambda: False)

    (at,) = tf.while_loop(goes_on, follow, (tf.constant(len(_PNG)),))
    has_alpha_samples = _byte(header, tf.constant(25)) & 4 > 0  # the header's colour type
    return ~(has_alpha_samples | tf.cond(at <= end, lambda: is_kind(at, b"tRNS"), lambda: False))


def _decoded(data: Any) -> Any:
    """uint8 [H, W, 3]."""

    def png() -> Any:
        samples = tf.cast(tf.io.decode_png(data, channels=4), tf.int32)
        # TensorFlow fills the alpha of samples of fewer than eight bits as if alpha had as few.
        alpha = tf.where(_lacks_alpha(data), 255, samples[..., 3:])
        # Rounded to the nearest, as Pillow composites.
        return tf.cast((samples[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)

    # The method that Pillow uses; TensorFlow's own default is faster and a level or two off.
    return tf.cond(_begins(data, _PNG), png, lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"))


# === Orientation (CIPA DC-008, tag 274) ===


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


def _orientation(data: Any) -> Any:
    """int32 scalar: the orientation that an EXIF block says, 1 where there is none or it cannot be read."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, _HEADER_BYTES), tf.uint8), tf.int32)
    exif = _find(header, b"Exif\0\0")
    chunk = _find(header, b"eXIf")
    start = tf.where(exif >= 0, exif + 6, tf.where(chunk >= 0, chunk + 4, -1))
    return tf.cond(start >= 0, lambda: _entry(header, start), lambda: tf.constant(1))


def _find(values: Any, wanted: bytes) -> Any:
    """Where bytes are found first; −1 where they are not."""
    windows = tf.shape(values)[0] - len(wanted) + 1
    found = tf.fill((tf.maximum(windows, 0),), True)
    for offset, byte in enumerate(wanted):
        found &= tf.equal(values[offset : offset + tf.maximum(windows, 0)], byte)
    places = tf.where(found)[:, 0]
    return tf.cond(tf.size(places) > 0, lambda: tf.cast(places[0], tf.int32), lambda: tf.constant(-1))


def _entry(header: Any, start: Any) -> Any:
    """The value of the orientation's entry in the first directory (TIFF 6.0, section 2)."""
    is_little = tf.equal(_byte(header, start), ord("I"))

    def number(place: Any, size: int) -> Any:
        order = [tf.where(is_little, size - 1 - i, i) for i in range(size)]
        total = tf.zeros_like(place)
        for offset in order:
            total = total * 256 + _byte(header, place + offset)
        return total

    directory = start + number(start + 4, 4)
    places = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), _ENTRIES))
    value = tf.reduce_sum(tf.where(tf.equal(number(places, 2), _ORIENTATION), number(places + 8, 2), 0))
    return tf.where(value > 0, value, 1)


def _byte(values: Any, place: Any) -> Any:
    last = tf.shape(values)[0] - 1
    return tf.where((place >= 0) & (place <= last), tf.gather(values, tf.clip_by_value(place, 0, last)), 0)


# === Resizing ===


def _fit(image: Any, fitting: Fitting) -> Any:
    shape = tf.shape(image)
    rows, columns = _resized(shape[0], shape[1], fitting)
    kept = (tf.minimum(rows, fitting.height), tf.minimum(columns, fitting.width))
    first = (tf.maximum(0, rows - fitting.height) // 2, tf.maximum(0, columns - fitting.width) // 2)
    resize = _by_tensorflow if fitting.resize == "tf-bilinear" else _by_pillow
    pixels = resize(image, (shape[0], rows, first[0], kept[0]), (shape[1], columns, first[1], kept[1]))
    before = ((fitting.height - kept[0]) // 2, (fitting.width - kept[1]) // 2)
    black = [
        (before[0], fitting.height - kept[0] - before[0]),
        (before[1], fitting.width - kept[1] - before[1]),
        (0, 0),
    ]
    return tf.pad(pixels, black)


def _resized(height: Any, width: Any, fitting: Fitting) -> tuple[Any, Any]:
    """Rows and columns of the resized picture, before anything is cut off or added, as `Fitting` has them."""
    if fitting.fit == "stretch":
        return tf.constant(fitting.height), tf.constant(fitting.width)
    if fitting.shorter_side is not None:
        rows = columns = fitting.shorter_side
        is_by_rows = height <= width
    else:
        rows, columns = fitting.height, fitting.width
        is_wider = width * fitting.height >= height * fitting.width
        is_by_rows = tf.equal(is_wider, fitting.fit == "crop")
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
    centre = (begin + (tf.range(wanted, dtype=tf.float64) + 0.5) * scale)[:, tf.newaxis]
    place = tf.range(source, dtype=tf.float64)[tf.newaxis]
    inside = (place >= tf.floor(centre - support + 0.5)) & (place < tf.floor(centre + support + 0.5))
    weight = tf.where(inside, tf.maximum(1.0 - tf.abs((place - centre + 0.5) / support), 0.0), 0.0)
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
