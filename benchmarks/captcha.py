"""Whole words read on CAPTCHAs like the published ones, on words and fonts that nothing was tuned on.

    python benchmarks/captcha.py results OUT [--profile quick|default] [--set held_out|development] [--json]
    python benchmarks/captcha.py make DATA [--set held_out|development] [--count N] [--labelled M]
    python benchmarks/captcha.py speed [--count N]     how fast pictures are made and prepared

`results` makes a set, prepares it, trains a recognizer with a profile's own settings, reads the test split, whose words
the store does not know, and prints a row: `quick` learns from 20,000 pictures, `default` from 100,000. What is in OUT
already is not made or trained again, and a training that was stopped goes on.

All tuning is done on `DEVELOPMENT`; results are those on `HELD_OUT`, which shares with it neither word nor font nor
seed. Both were settled before any tuning. A set is made of one specification, train, val and test alike, as the
published set is. The words of `HELD_OUT` are of SCOWL, as `features.synthetic.captchas.style` tells.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spending import Cost, cost, timed

import capt
from features.synthetic.captchas.dataset import make_captchas
from features.synthetic.captchas.style import (
    DEFAULT_FONTS,
    CaptchaStyle,
    find_default_fonts,
    load_default_words,
    read_words,
)

COUNT = 140_000
FEW = 7


@dataclass(frozen=True)
class Specification:
    """What a look-alike set is made of.

    Args:
        words: tuple of str. The words that its pictures show.
        fonts: tuple of str. Names of fonts that Matplotlib comes with.
        seed: int. Decides the pictures.
    """

    words: tuple[str, ...]
    fonts: tuple[str, ...]
    seed: int

    @property
    def look(self) -> CaptchaStyle:
        """The words and the font files."""
        return CaptchaStyle(self.words, find_default_fonts(self.fonts))


DEVELOPMENT = Specification(load_default_words(), DEFAULT_FONTS, seed=1)
HELD_OUT = Specification(
    words=read_words(Path(__file__).with_name("captcha_words.txt")),
    fonts=("cmmi10", "cmtt10", "DejaVuSans", "STIXGeneralBolIta"),
    seed=20_261_120,
)
SETS = {"development": DEVELOPMENT, "held_out": HELD_OUT}
COUNTS = {"quick": 28_000, "default": COUNT}
CORES = 2


def main() -> None:
    """Do the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    make = steps.add_parser("make", help="make a look-alike set")
    make.add_argument("data", type=Path, help="directory to make")
    make.add_argument("--set", choices=SETS, default="held_out")
    make.add_argument("--count", type=int, default=COUNT)
    make.add_argument("--labelled", type=int)
    make.set_defaults(step=_make)
    results = steps.add_parser("results", help="train with a profile, and read the test split")
    results.add_argument("out", type=Path, help="directory to leave everything in")
    results.add_argument("--profile", choices=COUNTS, default="quick")
    results.add_argument("--set", choices=SETS, default="held_out")
    results.add_argument("--json", action="store_true", help="print all figures as one line of JSON at the end")
    results.set_defaults(step=_results)
    speed = steps.add_parser("speed", help="make and prepare pictures, and say how fast")
    speed.add_argument("--count", type=int, default=3000)
    speed.set_defaults(step=_speed)
    given = parser.parse_args()
    given.step(given)


def _make(given: argparse.Namespace) -> None:
    chosen = SETS[given.set]
    print(json.dumps(make_captchas(chosen.look, given.data, given.count, chosen.seed, given.labelled)))


# === Results ===


@dataclass(frozen=True)
class Bench:
    """A profile's results on a set, and where they are left.

    Args:
        out: Path. The directory.
        profile: str. The profile.
        set: str. A name of `SETS`.
        count: int. Pictures to make: five sevenths to learn from, a seventh to validate on, a seventh to read.
    """

    out: Path
    profile: str
    set: str
    count: int

    @property
    def data(self) -> Path:
        """The pictures."""
        return self.out / "data"

    @property
    def run(self) -> Path:
        """The run."""
        return self.out / "run"

    def measure(self) -> dict[str, Any]:
        """All figures: what was learned from, what it took, and what was read right."""
        pictures, store = self.data / "words_captcha", self.out / "store"
        if not self.data.exists():
            chosen = SETS[self.set]
            make_captchas(chosen.look, self.data, self.count, chosen.seed)
        capt.prepare_captcha(store=str(store), images=[str(pictures)], labels=str(pictures))
        spent = self.out / "run.json"
        with timed(spent) as idle:
            trained = capt.train_captcha(store=str(store), run_dir=str(self.run), profile=self.profile)
            if trained["resumed_at"] == trained["steps"]:
                idle.append("trained already")
        scores = capt.evaluate(runs=[str(self.run)], store=str(store), labels=str(self.data / "truth.txt"))
        curve = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        return {
            "profile": self.profile,
            "set": self.set,
            "images": trained["images"]["train"],
            "epochs": trained["epochs"],
            **json.loads(spent.read_text()),
            "val_accuracy": [one["val_accuracy"] for one in curve],
            "seconds_an_epoch": [round(one["seconds"] + one["val_seconds"], 1) for one in curve],
            "scores": scores,
        }


def _results(given: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("capt").setLevel(logging.INFO)
    figures = Bench(given.out.absolute(), given.profile, given.set, COUNTS[given.profile]).measure()
    print(table(figures))
    if given.json:
        print(json.dumps(figures))


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table of one row."""
    scores = figures["scores"]
    low, high = scores["greedy"]["interval"]
    minutes = figures["cpu_seconds"] / CORES / 60
    cells = {
        "profile": figures["profile"],
        "set": figures["set"],
        "images": f"{figures['images']:,}",
        "epochs": figures["epochs"],
        "minutes by the clock": f"{figures['seconds'] / 60:.1f}",
        f"CPU min over {CORES} cores": f"{minutes:.1f}",
        "read": f"{scores['images']:,}",
        "free": f"{scores['exact_match']:.2%} ({low:.2%}–{high:.2%})",
        "free, beam": f"{scores['exact_match_beam']:.2%}",
        "lexicon": f"{scores['exact_match_lexicon']:.2%}",
        "wrong letters": f"{scores['greedy']['character_error_rate']:.2%}",
    }
    rows = [cells.keys(), ("---",) * len(cells), map(str, cells.values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# === Speed ===


def _speed(given: argparse.Namespace) -> None:
    """What `--count` pictures cost beyond what `FEW` do, which is mostly start-up."""
    with tempfile.TemporaryDirectory() as directory:
        few, many = (_costs(Path(directory) / name, count) for name, count in (("few", FEW), ("many", given.count)))
    further = given.count - FEW
    figures = {step: _figures(many[step] - few[step], further) for step in many}
    print(json.dumps({"count": given.count, **figures, "load": [round(load, 1) for load in os.getloadavg()]}))


def _figures(took: Cost, pictures: int) -> dict[str, float]:
    return {
        "pictures_a_second": round(pictures / took.clock, 1),
        "processor_ms_a_picture": round(took.processor / pictures * 1e3, 2),
    }


def _costs(directory: Path, count: int) -> dict[str, Cost]:
    """What making and preparing so many pictures takes."""
    data, store = directory / "data", directory / "store"
    folder = data / "words_captcha"
    return {
        "make": _cost("synth", "captcha", data, "--num-images", count, "--seed", DEVELOPMENT.seed),
        "prepare": _cost("prepare", "captcha", "--store", store, "--images", folder, "--labels", folder),
    }


def _cost(*command: str | int | Path) -> Cost:
    """What a command of capt takes."""
    words = [sys.executable, "-c", "import capt; capt.main()", *map(str, command), "--quiet"]
    return cost(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL))


if __name__ == "__main__":
    main()
