"""Images of labels in any alphabet: every character is a patch of its own color, in the order in which it is shown."""

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image

from features.text.visual_order import visual_positions
from tests.trainer.words import Captcha

ALPHABETS = {
    "digits": ("007", "1989", "42", "1e5", "0", "365"),
    "mixed case": ("Null", "nULL", "NaN", "aA", "Zz", "z"),
    "Cyrillic": ("жук", "Ёж", "эхо", "ужё", "хук", "к"),
    "Arabic": ("سلام", "باب", "٢٣ب٤٥", "نور", "با", "سن"),
    "CJK": ("京都", "大人", "人大京", "都", "大大", "京人"),
    "combining marks": ("हिन्दी", "दिन", "नदी", "हि", "दी", "न्द"),
    "one character": ("a", "b", "7", "é", "ß", "б"),
    "lines": ("SN-0042-7781-AB-9900", "AB-1100-0042-SN-7788", "SN-9977-8811-BA-0024"),
}
PATCH = 12


def width_of(labels: tuple[str, ...]) -> int:
    return PATCH * (max(map(len, labels)) + 1)


def labelled_images(labels: tuple[str, ...], count: int, height: int = 16, held_out: int = 0) -> list[Captcha]:
    """Images of the labels in turn, the last `held_out` of them val; patches lie a little higher or lower."""
    width = width_of(labels)
    return [
        labelled_image(
            number, labels[number % len(labels)], (height, width), "val" if number >= count - held_out else "train"
        )
        for number in range(count)
    ]


def labelled_image(number: int, label: str, size: tuple[int, int], split: str) -> Captcha:
    rng = np.random.default_rng(number)
    image = np.full((*size, 3), 255, np.uint8)
    left, top = rng.integers(0, PATCH // 2), rng.integers(0, 5)
    for place, position in enumerate(visual_positions(label)):
        color = np.frombuffer(hashlib.sha256(label[position].encode()).digest()[:3], np.uint8) // 2
        start = left + PATCH * place
        image[top : size[0] - 4 + top, start : start + PATCH - 3] = color
    data = BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return Captcha(f"a{number}", split, data.getvalue(), label)
