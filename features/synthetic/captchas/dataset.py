"""Writes CAPTCHA datasets: in the published layout, with all labels beside it, or as files named by their labels.

published                                                                       names
OUT/words_captcha/a0.png, a1.png, …                                             OUT/images/thus.png, thus.2.png, …
OUT/words_captcha/spec_train_val.txt    labels of the first images: `a0 thus`
OUT/truth.txt                           labels of all images
OUT/made.json                           settings of the dataset                 OUT/made.json
"""

import hashlib
import json
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from features.io.atomic_files import hash_file, write_directory
from features.io.file_trees import count_bytes
from features.io.locations import local_path
from features.synthetic.captchas.renderer import (
    LabelTooLargeError,
    choose_label,
    draw_captcha,
    encode_png,
    make_generator,
)
from features.synthetic.captchas.style import CaptchaStyle
from features.synthetic.captchas.style_options import read_style
from schemas.choices import CaptchaLayout
from schemas.errors import CaptError, UsageError
from schemas.options.data import SynthCaptcha
from schemas.strict_json import parse_json
from schemas.terminal.progress import progress_bar

IMAGE_DIR = "words_captcha"
LABEL_FILE = "spec_train_val.txt"
TRUTH_FILE = "truth.txt"
NAMED_IMAGE_DIR = "images"
NAME_PATTERN = r"(?P<label>[^.]+)(\.[0-9]+)?"

_SETTINGS_FILE = "made.json"
_VERSION = 1
_IMAGES_PER_TASK = 50
_GUARD_HINT = 'Call capt below `if __name__ == "__main__":` in your program.'
_MAX_NAME_BYTES = 240
_NOT_IN_NAMES = "./\\"

_log = logging.getLogger("capt.synth")


def synth_captcha(options: SynthCaptcha) -> dict[str, Any]:
    """Runs `capt synth captcha`; see `make_captchas`. `skipped_fonts` is the number of fonts that lack a character."""
    style, skipped = read_style(options)
    for font, reason in skipped.items():
        _log.warning("%s is skipped: %s.", font, reason)
    made = make_captchas(style, options.out, options.num_images, options.seed, options.num_labelled, options.layout)
    return {**made, "skipped_fonts": len(skipped)}


def make_captchas(
    style: CaptchaStyle,
    out: str | Path,
    num_images: int,
    seed: int,
    num_labelled: int | None = None,
    layout: CaptchaLayout = "published",
) -> dict[str, Any]:
    """Writes a dataset of CAPTCHAs atomically, on all cores. An equal dataset is kept.

    The same seed and style produce the same bytes with the same versions of Pillow and NumPy. A larger dataset
    starts with the images of a smaller one. By default, 6/7 of the images have a label in `spec_train_val.txt`; in the
    layout `names`, all names have their label, and the second image with a label is `LABEL.2.png`.

    Returns:
        `images`, `labelled`, numbers of `words` and `characters` of the labels and of `fonts`, `bytes` and `seed`.
    """
    if layout == "names":
        _check_names(style, num_labelled)
        num_labelled = num_images
    num_labelled = num_images * 6 // 7 if num_labelled is None else num_labelled
    if num_images < 1 or seed < 0 or not 0 <= num_labelled <= num_images:
        hint = "Use at least 1 image, at most as many labels as images, and a seed of at least 0."
        raise UsageError(f"got {num_images} images, {num_labelled} labels, seed {seed}", hint=hint)
    out = local_path(out).absolute()
    settings: dict[str, Any] = {
        "version": _VERSION,
        "count": num_images,
        "labelled": num_labelled,
        "seed": seed,
        "words": hashlib.sha256("\n".join(style.words).encode()).hexdigest(),
        "fonts": [hash_file(Path(font)) for font in style.fonts],
        **style.changed_settings,
    }
    if style.background_images:
        settings["background_images"] = [hash_file(Path(file)) for file in style.background_images]
    if layout != "published":
        settings["layout"] = layout
    write_directory(
        out,
        f"{num_images} CAPTCHAs of seed {seed} with these options",
        is_same=lambda root: bool(parse_json((root / _SETTINGS_FILE).read_bytes()) == settings),
        write_into=lambda root: _write(root, style, settings),
    )
    return {
        "images": num_images,
        "labelled": num_labelled,
        "words": len(style.words),
        "characters": len(style.label_characters),
        "fonts": len(style.fonts),
        "bytes": count_bytes(out),
        "seed": seed,
    }


def _check_names(style: CaptchaStyle, num_labelled: int | None) -> None:
    """Raises UsageError if labels cannot be names of files."""
    location = "--layout names"
    if num_labelled is not None:
        hint = "Omit --num-labelled: every name has a label."
        raise UsageError("the option is not used with this layout", location="--num-labelled", hint=hint)
    if unusable := sorted(style.label_characters.intersection(_NOT_IN_NAMES)):
        hint = "Remove the characters, or use --layout published."
        raise UsageError(
            f"a file name of a label cannot contain {' or '.join(map(repr, unusable))}", location=location, hint=hint
        )
    longest = max(len(character.encode()) for character in style.label_characters) * style.max_length
    if longest > _MAX_NAME_BYTES:
        message = f"a label may have {longest} bytes, and a file name at most {_MAX_NAME_BYTES}"
        raise UsageError(message, location=location, hint="Use shorter labels, or --layout published.")


def _write(root: Path, style: CaptchaStyle, settings: dict[str, Any]) -> None:
    count, seed = settings["count"], settings["seed"]
    is_named = settings.get("layout") == "names"
    directory = root / (NAMED_IMAGE_DIR if is_named else IMAGE_DIR)
    directory.mkdir()
    names = _name_by_labels(style, count, seed) if is_named else [f"a{number}" for number in range(count)]
    labels = list(_draw_images(directory, names, style, seed))
    if not is_named:
        lines = [f"{name} {label}\n" for name, label in zip(names, labels, strict=True)]
        (root / TRUTH_FILE).write_text("".join(lines), encoding="utf-8")
        (directory / LABEL_FILE).write_text("".join(lines[: settings["labelled"]]), encoding="utf-8")
    (root / _SETTINGS_FILE).write_text(json.dumps(settings))


def _name_by_labels(style: CaptchaStyle, count: int, seed: int) -> list[str]:
    """Returns a unique name per image, also where names ignore case: `thus`, `thus.2`, `Thus.3`."""
    seen, names = Counter[str](), []
    for number in range(count):
        label = choose_label(style, make_generator(seed, number))
        seen[label.casefold()] += 1
        repeated = seen[label.casefold()]
        names.append(label if repeated == 1 else f"{label}.{repeated}")
    return names


def _draw_images(directory: Path, names: Sequence[str], style: CaptchaStyle, seed: int) -> Iterator[str]:
    """Draws images in several processes, because Pillow holds the GIL, and yields their labels in order."""
    _check_not_imported_again()
    count = len(names)
    tasks = [range(start, min(start + _IMAGES_PER_TASK, count)) for start in range(0, count, _IMAGES_PER_TASK)]
    workers = min(os.cpu_count() or 1, len(tasks))
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    with ProcessPoolExecutor(workers, context) as pool, progress_bar("drawing", count, "images") as advance:
        arguments = ((directory, names[task.start : task.stop], style, seed, task) for task in tasks)
        results = pool.map(_draw_range, *zip(*arguments, strict=True))
        try:
            for task, labels in zip(tasks, results, strict=True):
                yield from labels
                advance(task.stop, "")
        except BrokenProcessPool:
            hint = f"{_GUARD_HINT} Otherwise check the free memory."
            raise CaptError("a process that draws images ended early", hint=hint) from None
        except LabelTooLargeError as error:
            hint = "Use a larger --width or --height, shorter labels, or a smaller --max-rotation."
            raise UsageError(str(error), hint=hint) from None


def _check_not_imported_again() -> None:
    """Raises if a new process imports the program again, before the pool creates semaphores that it would leak."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise CaptError("a process that draws images cannot start other processes", hint=_GUARD_HINT)


def _draw_range(
    directory: Path, names: Sequence[str], style: CaptchaStyle, seed: int, numbers: Sequence[int]
) -> list[str]:
    labels = []
    for name, number in zip(names, numbers, strict=True):
        image, label = draw_captcha(seed, number, style)
        (directory / f"{name}.png").write_bytes(encode_png(image))
        labels.append(label)
    return labels
