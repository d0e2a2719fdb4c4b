"""Datasets of CAPTCHAs, in the published layout with the truth beside it.

OUT/words_captcha/a0.png, a1.png, …
OUT/words_captcha/spec_train_val.txt    the words of the first images: lines `a0 thus`
OUT/truth.txt                           the words of all
OUT/made.json                           what the data was made of
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from features.io.atomic_files import hash_file
from features.io.locations import local_path
from features.io.output_dirs import make_folder
from features.synthetic.captchas.fonts import find_default_fonts, list_fonts
from features.synthetic.captchas.renderer import CaptchaStyle, draw_captcha, encode_png
from features.synthetic.captchas.word_list import load_default_words, read_words
from schemas.errors import UsageError
from schemas.options.data import SynthCaptcha
from schemas.strict_json import parse_json
from schemas.terminal.progress import progress_bar

FOLDER = "words_captcha"
LABELS = "spec_train_val.txt"
TRUTH = "truth.txt"

_MADE = "made.json"
_VERSION = 1
_AT_ONCE = 50  # pictures a task


def synth_captcha(options: SynthCaptcha) -> dict[str, Any]:
    """`capt synth captcha`: see `make_captchas`."""
    look = CaptchaStyle(
        words=read_words(options.word_list) if options.word_list else load_default_words(),
        fonts=list_fonts(options.font_dir) if options.font_dir else find_default_fonts(),
    )
    return make_captchas(look, options.out, options.num_images, options.seed, options.num_labelled)


def make_captchas(
    look: CaptchaStyle, out: str | Path, count: int, seed: int, labelled: int | None = None
) -> dict[str, Any]:
    """Writes a dataset of CAPTCHAs in the published layout; a folder that holds this very dataset is left as it is.

    The same seed, words and fonts give the same bytes (with the same Pillow and NumPy), and a larger count the same
    pictures before others. The folder appears under its name once it is complete. All cores draw.

    Args:
        look: Look. Words and fonts.
        out: Path. The folder; it does not exist yet, or is empty.
        count: int. Number of pictures, at least 1.
        seed: int. At least 0.
        labelled: int or None. How many have their words in `spec_train_val.txt`; None for 6/7 of them.

    Returns: dict with `images`, `labelled`, `words` and `fonts` (how many there are), `bytes` and `seed`.

    Raises: UsageError where the folder holds something else, or an argument is out of range.
    """
    labelled = count * 6 // 7 if labelled is None else labelled
    if count < 1 or seed < 0 or not 0 <= labelled <= count:
        raise UsageError(
            f"got count {count}, labelled {labelled}, seed {seed}",
            hint="a count of at least 1, labels for at most so many, and a seed of at least 0",
        )
    out, facts = local_path(out).absolute(), _facts(look, count, seed, labelled)
    make_folder(
        out,
        f"{count} CAPTCHAs of seed {seed} with these words and fonts",
        holds=lambda made: bool(parse_json((made / _MADE).read_bytes()) == facts),
        write=lambda made: _write(made, look, facts),
    )
    return {
        "images": count,
        "labelled": labelled,
        "words": len(look.words),
        "fonts": len(look.fonts),
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "seed": seed,
    }


def _facts(look: CaptchaStyle, count: int, seed: int, labelled: int) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "count": count,
        "labelled": labelled,
        "seed": seed,
        "words": hashlib.sha256("\n".join(look.words).encode()).hexdigest(),
        "fonts": [hash_file(Path(font)) for font in look.fonts],
    }


def _write(made: Path, look: CaptchaStyle, facts: dict[str, Any]) -> None:
    (made / FOLDER).mkdir()
    lines = list(_draw_all(made / FOLDER, look, facts["count"], facts["seed"]))
    (made / TRUTH).write_text("".join(lines))
    (made / FOLDER / LABELS).write_text("".join(lines[: facts["labelled"]]))
    (made / _MADE).write_text(json.dumps(facts))


def _draw_all(folder: Path, look: CaptchaStyle, count: int, seed: int) -> Iterator[str]:
    """Draws in processes, for Pillow draws in one thread at a time; the lines of the truth, in order."""
    tasks = [range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]
    workers = min(os.cpu_count() or 1, len(tasks))
    spawning = multiprocessing.get_context("spawn")  # a fork would take the locks of other threads along
    with ProcessPoolExecutor(workers, spawning) as pool, progress_bar("drawing", count, "pictures") as show:
        drawn = pool.map(_draw_some, *zip(*((folder, look, seed, some) for some in tasks), strict=True))
        for task, lines in zip(tasks, drawn, strict=True):
            yield from lines
            show(task.stop, "")


def _draw_some(folder: Path, look: CaptchaStyle, seed: int, numbers: Iterable[int]) -> list[str]:
    return [_draw_one(folder, look, seed, number) for number in numbers]


def _draw_one(folder: Path, look: CaptchaStyle, seed: int, number: int) -> str:
    picture, word = draw_captcha(seed, number, look)
    (folder / f"a{number}.png").write_bytes(encode_png(picture))
    return f"a{number} {word}\n"
