"""Small data of integers for the golden tests: images, a network, captions and CAPTCHAs; nothing is random."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 8
COLORS = ("red", "green", "blue", "grey")
SIZES = ("small", "large", "wide")
LABELS = ("an", "no", "on", "to", "tan", "not")

CAPTIONS = (
    "A man's red hat, in the rain.",
    "  TWO dogs -- one brown, one black -- run;  run! ",
    "Un café très cher à Zürich",
    "a_snake_case word and 3.5 numbers (2nd)",
    "naïve “quotes” … and a dash–dash",
    "a man in a red hat and a dog in the rain run and run",
)


def image(number: int, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """Returns the pixels [height, width, 3] of an image."""
    rows, columns, channels = np.indices((height, width, 3))
    return ((rows * (7 + number) + columns * 13 + channels * 29 + number * 41) % 251).astype(np.uint8)


def write_images(directory: Path, count: int) -> Path:
    """Writes PNGs `000.png`, `001.png`, …"""
    directory.mkdir()
    for number in range(count):
        Image.fromarray(image(number)).save(directory / f"{number:03d}.png")
    return directory


def write_network(path: Path) -> Path:
    """Writes a Keras model whose outputs [2, 2, 6] are whole numbers of at most a few thousand."""
    import keras

    inputs = keras.Input((SIDE, SIDE, 3))
    mean = keras.layers.AveragePooling2D(2, name="mean")(inputs)
    outputs = keras.layers.Conv2D(6, 2, strides=2, name="kernel")(mean)
    model = keras.Model(inputs, outputs)
    shape = model.get_layer("kernel").kernel.shape
    kernel = np.arange(np.prod(shape)).reshape(shape) % 7 - 3
    model.get_layer("kernel").set_weights([4.0 * kernel, np.arange(6.0) - 2])
    model.save(path)
    return path


def write_captions(path: Path, count: int) -> Path:
    """Writes three captions per image as JSON Lines; every fourth image is in val."""
    lines = []
    for number in range(count):
        color, size = COLORS[number % 4], SIZES[number % 3]
        texts = (f"a {size} {color} square", f"the square is {color}", f"one {size} thing that is {color} is there")
        split = "val" if number % 4 == 3 else "train"
        lines.append(json.dumps({"image": f"{number:03d}.png", "captions": texts, "split": split}))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_captchas(root: Path, count: int) -> tuple[Path, Path]:
    """Writes images `a0.png`, … and the file with their labels; the image repeats its label as stripes."""
    directory = root / "captchas"
    directory.mkdir()
    lines = []
    for number in range(count):
        label = LABELS[number % len(LABELS)]
        shown = image(number, 16, 48)
        for place, character in enumerate(label):
            shown[4:12, 4 + 14 * place : 14 + 14 * place, place % 3] = 9 * (ord(character) - ord("a"))
        Image.fromarray(shown).save(directory / f"a{number}.png")
        lines.append(f"a{number} {label}\n")
    labels = root / "labels.txt"
    labels.write_text("".join(lines))
    return directory, labels
