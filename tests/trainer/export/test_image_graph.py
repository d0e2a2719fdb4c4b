import functools
from io import BytesIO

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from features.images.decode import decode
from features.images.resize import Resizer
from trainer.export.image_graph import PROBLEMS, read_images

FITTINGS = [
    Resizer(64, 64),
    Resizer(40, 56, "tf-bilinear"),
    Resizer(64, 64, "pillow-bilinear", "crop", 80),
    Resizer(48, 96, "tf-bilinear", "crop"),
    Resizer(96, 64, "pillow-bilinear", "pad"),
    Resizer(64, 90, "tf-bilinear", "pad"),
    Resizer(96, 64, "pillow-bilinear", "pad-border"),
    Resizer(64, 90, "tf-bilinear", "pad-border"),
]


@functools.cache
def reader(fitting):
    """The graph that reads images, as a saved model has it."""
    return tf.function(lambda data: read_images(data, fitting), input_signature=[tf.TensorSpec([None], tf.string)])


def encoded(width, height, mode="RGB", form="JPEG", orientation=0, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(generator.integers(0, 256, (height, width), dtype=np.uint8)))
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    data = BytesIO()
    image.save(data, form, exif=exif)
    return data.getvalue()


SOUND = {
    "large": encoded(640, 480),
    "grey": encoded(111, 200, "L"),
    "cmyk": encoded(100, 90, "CMYK"),
    "transparent": encoded(120, 77, "RGBA", "PNG"),
    "palette": encoded(70, 70, "P", "PNG"),
    "grey with alpha": encoded(60, 50, "LA", "PNG"),
    "tiny": encoded(7, 5, "RGB", "PNG"),
    "turned png": encoded(90, 60, "RGB", "PNG", orientation=6),
    **{f"turned {turn}": encoded(100, 64, orientation=turn) for turn in range(1, 9)},
}
UNSOUND = {
    b"": "empty",
    encoded(50, 50, "P", "GIF"): "unsupported: neither JPEG nor PNG",
    b"no picture": "unsupported: neither JPEG nor PNG",
    SOUND["large"][:4000]: "corrupt or truncated",
    SOUND["transparent"][:900]: "corrupt or truncated",
    b"\xff\xd8\xff nothing": "corrupt or truncated",
    b"\x89PNG\r\n\x1a\n": "corrupt or truncated",
    SOUND["tiny"][:16] + (200_000).to_bytes(4, "big") * 2 + SOUND["tiny"][24:]: "too large",
}


@pytest.mark.parametrize("fitting", FITTINGS, ids=str)
def test_served_pixels_equal_stored_pixels(fitting):
    pixels, problems = reader(fitting)(tf.constant(list(SOUND.values())))
    assert not problems.numpy().any()
    assert pixels.dtype == fitting.dtype
    for name, data, made in zip(SOUND, SOUND.values(), pixels.numpy(), strict=True):
        np.testing.assert_array_equal(made, decode(data, fitting), err_msg=name)


def test_an_unreadable_image_has_a_problem_and_does_not_affect_others():
    data = [b"", *SOUND.values()][:4] + list(UNSOUND) + [SOUND["tiny"]]
    pixels, problems = reader(FITTINGS[0])(tf.constant(data))
    reasons = [PROBLEMS[problem] for problem in problems.numpy()]
    assert reasons == ["empty", "", "", "", *UNSOUND.values(), ""]
    assert not pixels.numpy()[problems.numpy() > 0].any()
    np.testing.assert_array_equal(pixels[-1], decode(SOUND["tiny"], FITTINGS[0]))


def test_a_batch_may_be_unreadable_or_empty():
    assert reader(FITTINGS[0])(tf.constant([b"", b"x"]))[1].numpy().tolist() == [1, 2]
    assert reader(FITTINGS[0])(tf.constant([], tf.string))[0].shape == (0, 64, 64, 3)
