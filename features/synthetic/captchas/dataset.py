"""Writes CAPTCHA datasets in the published layout, with all labels beside it.

OUT/words_captcha/a0.png, a1.png, …
OUT/words_captcha/spec_train_val.txt    labels of the first images: lines `a0 thus`
OUT/truth.txt                           labels of all images
OUT/made.json                           settings of the dataset
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from features.io.atomic_files import hash_file, write_directory
from features.io.file_trees import count_bytes
from features.io.locations import local_path
from features.synthetic.captchas.renderer import draw_captcha, encode_png
from features.synthetic.captchas.style import (
    CaptchaStyle,
    find_default_fonts,
    list_fonts,
    load_default_words,
    parse_num_strokes,
    read_words,
)
from schemas.errors import CaptError, UsageError
from schemas.options.data import SynthCaptcha
from schemas.strict_json import parse_json
from schemas.terminal.progress import progress_bar

IMAGE_DIR = "words_captcha"
LABEL_FILE = "spec_train_val.txt"
TRUTH_FILE = "truth.txt"

_SETTINGS_FILE = "made.json"
_VERSION = 1
_IMAGES_PER_TASK = 50
_GUARD_HINT = 'Call capt below `if __name__ == "__main__":` in your program.'


def synth_captcha(options: SynthCaptcha) -> dict[str, Any]:
    """Runs `capt synth captcha`; see `make_captchas`."""
    style = CaptchaStyle(
        words=read_words(options.word_list) if options.word_list else load_default_words(),
        fonts=list_fonts(options.font_dir) if options.font_dir else find_default_fonts(),
        num_strokes=parse_num_strokes(options.num_strokes),
        max_rotation=options.max_rotation,
        width=options.width,
        height=options.height,
    )
    return make_captchas(style, options.out, options.num_images, options.seed, options.num_labelled)


def make_captchas(
    style: CaptchaStyle, out: str | Path, num_images: int, seed: int, num_labelled: int | None = None
) -> dict[str, Any]:
    """Writes a dataset of CAPTCHAs atomically, on all cores. An equal dataset is kept.

    The same seed and style produce the same bytes with the same versions of Pillow and NumPy. A larger dataset
    starts with the images of a smaller one. By default, 6/7 of the images have a label in `spec_train_val.txt`.

    Returns:
        `images`, `labelled`, numbers of `words` and `fonts`, `bytes` and `seed`.
    """
    num_labelled = num_images * 6 // 7 if num_labelled is None else num_labelled
    if num_images < 1 or seed < 0 or not 0 <= num_labelled <= num_images:
        hint = "Use at least 1 image, at most as many labels as images, and a seed of at least 0."
        raise UsageError(f"got {num_images} images, {num_labelled} labels, seed {seed}", hint=hint)
    out = local_path(out).absolute()
    settings = {
        "version": _VERSION,
        "count": num_images,
        "labelled": num_labelled,
        "seed": seed,
        "words": hashlib.sha256("\n".join(style.words).encode()).hexdigest(),
        "fonts": [hash_file(Path(font)) for font in style.fonts],
        **style.changed_settings,
    }
    write_directory(
        out,
        f"{num_images} CAPTCHAs of seed {seed} with these words, fonts, strokes, rotations and size",
        is_same=lambda root: bool(parse_json((root / _SETTINGS_FILE).read_bytes()) == settings),
        write_into=lambda root: _write(root, style, settings),
    )
    return {
        "images": num_images,
        "labelled": num_labelled,
        "words": len(style.words),
        "fonts": len(style.fonts),
        "bytes": count_bytes(out),
        "seed": seed,
    }


def _write(root: Path, style: CaptchaStyle, settings: dict[str, Any]) -> None:
    (root / IMAGE_DIR).mkdir()
    lines = list(_draw_images(root / IMAGE_DIR, style, settings["count"], settings["seed"]))
    (root / TRUTH_FILE).write_text("".join(lines))
    (root / IMAGE_DIR / LABEL_FILE).write_text("".join(lines[: settings["labelled"]]))
    (root / _SETTINGS_FILE).write_text(json.dumps(settings))


def _draw_images(directory: Path, style: CaptchaStyle, count: int, seed: int) -> Iterator[str]:
    """Draws images in several processes, because Pillow holds the GIL, and yields their label lines in order."""
    _check_not_imported_again()
    tasks = [range(start, min(start + _IMAGES_PER_TASK, count)) for start in range(0, count, _IMAGES_PER_TASK)]
    workers = min(os.cpu_count() or 1, len(tasks))
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    with ProcessPoolExecutor(workers, context) as pool, progress_bar("drawing", count, "images") as advance:
        results = pool.map(_draw_range, *zip(*((directory, style, seed, task) for task in tasks), strict=True))
        try:
            for task, lines in zip(tasks, results, strict=True):
                yield from lines
                advance(task.stop, "")
        except BrokenProcessPool:
            hint = f"{_GUARD_HINT} Otherwise check the free memory."
            raise CaptError("a process that draws images ended early", hint=hint) from None


def _check_not_imported_again() -> None:
    """Raises if a new process imports the program again, before the pool creates semaphores that it would leak."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise CaptError("a process that draws images cannot start other processes", hint=_GUARD_HINT)


def _draw_range(directory: Path, style: CaptchaStyle, seed: int, numbers: Iterable[int]) -> list[str]:
    lines = []
    for number in numbers:
        image, label = draw_captcha(seed, number, style)
        (directory / f"a{number}.png").write_bytes(encode_png(image))
        lines.append(f"a{number} {label}\n")
    return lines
