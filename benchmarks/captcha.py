"""Benchmark: exact match of recognizers on synthetic CAPTCHAs with held-out words and fonts.

    python benchmarks/captcha.py results OUT [--profile quick|default|best] [--set held_out|development|thin]
        [--epochs N] [--json]
    python benchmarks/captcha.py make DATA [--set held_out|development|thin] [--count N] [--labelled M]
    python benchmarks/captcha.py speed [--count N]     images per second of generation and preparation
    python benchmarks/captcha.py peers IMAGES OUT [--labels names|FILE] [--folds 5] [--fold K] [--epochs N] [--json]

`results` generates a dataset, prepares it, trains a recognizer with the settings of a profile, recognizes the test
split, whose labels are not in the store, and prints one row. `quick` trains on 20,000 images, the others on 100,000.
Data and runs in OUT are reused, and an interrupted training is resumed.

`peers` trains a network like that of Keras' OCR example and capt's recognizer on the folds of any set; see
`captcha_peers`.

All tuning uses `DEVELOPMENT`, and `THIN`: the same words in thin, slanted and connected letters. Results are for
`HELD_OUT`, which shares no word, font or seed with them. `DEVELOPMENT` and `HELD_OUT` were fixed before any tuning.
Train, validation and test images of a dataset have the same specification, as in the published dataset. The words of
`HELD_OUT` are from SCOWL; see `features.synthetic.captchas.labels`.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import captcha_peers
from cost import Cost, measure_command, timed

import capt
from features.synthetic.captchas.dataset import make_captchas
from features.synthetic.captchas.fonts import DEFAULT_FONTS, find_default_fonts
from features.synthetic.captchas.labels import load_default_words, read_words
from features.synthetic.captchas.style import CaptchaStyle
from schemas.errors import CaptError

COUNT = 140_000
FEW = 7


@dataclass(frozen=True)
class Specification:
    """The settings of a generated dataset.

    Args:
        words: Words of the images.
        fonts: Names of Matplotlib's fonts.
        seed: Seed of the images.
        distortions: Further settings of the style, by name.
    """

    words: tuple[str, ...]
    fonts: tuple[str, ...]
    seed: int
    distortions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def style(self) -> CaptchaStyle:
        """The style of the images."""
        return CaptchaStyle(self.words, find_default_fonts(self.fonts), **self.distortions)


DEVELOPMENT = Specification(load_default_words(), DEFAULT_FONTS, seed=1)
# At 80×160, most lines of the letters are one to two pixels wide.
THIN = Specification(
    load_default_words(),
    fonts=("cmr10", "STIXGeneral", "STIXGeneralItalic", "DejaVuSans-Oblique"),
    seed=2,
    distortions={"weight_change": (-6, -2), "max_shear": 20, "max_overlap": 0.2, "label_width": (0.25, 0.6)},
)
HELD_OUT = Specification(
    words=read_words(Path(__file__).with_name("captcha_words.txt")),
    fonts=("cmmi10", "cmtt10", "DejaVuSans", "STIXGeneralBolIta"),
    seed=20_261_120,
)
SETS = {"development": DEVELOPMENT, "thin": THIN, "held_out": HELD_OUT}
COUNTS = {"quick": 28_000, "default": COUNT, "best": COUNT}
CORES = 2


def main() -> None:
    """Runs the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    make = steps.add_parser("make", help="generate a dataset")
    make.add_argument("data", type=Path, help="output directory")
    make.add_argument("--set", choices=SETS, default="held_out")
    make.add_argument("--count", type=int, default=COUNT)
    make.add_argument("--labelled", type=int)
    make.set_defaults(step=_make)
    results = steps.add_parser("results", help="train with a profile and recognize the test split")
    results.add_argument("out", type=Path, help="output directory")
    results.add_argument("--profile", choices=COUNTS, default="quick")
    results.add_argument("--set", choices=SETS, default="held_out")
    results.add_argument("--epochs", type=int, choices=range(1, 1001), metavar="N", help="for a trial")
    results.add_argument("--json", action="store_true", help="also print the results as one line of JSON")
    results.set_defaults(step=_results)
    speed = steps.add_parser("speed", help="measure generation and preparation")
    speed.add_argument("--count", type=int, default=3000)
    speed.set_defaults(step=_speed)
    peers = steps.add_parser("peers", help="train a peer and capt on the folds of a set")
    peers.add_argument("images", help="directory or archive of images")
    peers.add_argument("out", type=Path, help="output directory")
    peers.add_argument("--labels", metavar="names|FILE", help="as in capt prepare captcha")
    peers.add_argument("--folds", type=int, choices=range(2, 101), metavar="N", default=5)
    peers.add_argument("--fold", type=int, choices=range(1, 101), metavar="K", help="measure this fold only, from 1")
    peers.add_argument("--epochs", type=int, choices=range(1, 1001), metavar="N", help="of both, for a trial")
    peers.add_argument("--json", action="store_true", help="also print the results as one line of JSON")
    peers.set_defaults(step=_peers)
    given = parser.parse_args()
    given.step(given)


def _make(given: argparse.Namespace) -> None:
    chosen = SETS[given.set]
    print(json.dumps(make_captchas(chosen.style, given.data, given.count, chosen.seed, given.labelled)))


# === Results ===


@dataclass(frozen=True)
class Bench:
    """The results of a profile on a dataset.

    Args:
        out: Output directory.
        profile: Name of the profile.
        set: Name of the dataset, a key of `SETS`.
        count: Number of images: five sevenths for training, a seventh for validation, a seventh for test.
        epochs: Number of epochs; None means that of the profile.
    """

    out: Path
    profile: str
    set: str
    count: int
    epochs: int | None = None

    @property
    def data(self) -> Path:
        """Directory of the images."""
        return self.out / "data"

    @property
    def run(self) -> Path:
        """Run directory."""
        return self.out / "run"

    def measure(self) -> dict[str, Any]:
        """Returns the metrics, the numbers of images and epochs, and the cost of training."""
        images, store = self.data / "words_captcha", self.out / "store"
        if not self.data.exists():
            chosen = SETS[self.set]
            make_captchas(chosen.style, self.data, self.count, chosen.seed)
        capt.prepare_captcha(store=str(store), images=[str(images)], labels=str(images))
        spent = self.out / "run.json"
        with timed(spent) as idle:
            options = {"profile": self.profile, "epochs": self.epochs}
            trained = capt.train_captcha(store=str(store), run_dir=str(self.run), **options)
            if trained["resumed_at"] == trained["steps"]:
                idle.append("already trained")
        scores = capt.evaluate(runs=[str(self.run)], store=str(store), labels=str(self.data / "truth.txt"))
        curve = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        return {
            "profile": self.profile,
            "set": self.set,
            "images": trained["images"]["train"],
            "epochs": trained["epochs"],
            **json.loads(spent.read_text()),
            "val_exact_match": [one["val_exact_match"] for one in curve],
            "seconds_per_epoch": [round(one["seconds"] + one["val_seconds"], 1) for one in curve],
            "scores": scores,
        }


def _results(given: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("capt").setLevel(logging.INFO)
    bench = Bench(given.out.absolute(), given.profile, given.set, COUNTS[given.profile], given.epochs)
    figures = bench.measure()
    print(table(figures))
    if given.json:
        print(json.dumps(figures))


def table(figures: dict[str, Any]) -> str:
    """Formats the results as a Markdown table with one row."""
    scores = figures["scores"]
    low, high = scores["greedy"]["interval"]
    minutes = figures["cpu_seconds"] / CORES / 60
    cells = {
        "profile": figures["profile"],
        "set": figures["set"],
        "images": f"{figures['images']:,}",
        "epochs": figures["epochs"],
        "wall minutes": f"{figures['seconds'] / 60:.1f}",
        f"CPU min over {CORES} cores": f"{minutes:.1f}",
        "test images": f"{scores['images']:,}",
        "lexicon-free": f"{scores['exact_match']:.2%} ({low:.2%}–{high:.2%})",
        "lexicon-free, prefix beam search": f"{scores['exact_match_beam']:.2%}",
        "lexicon-constrained": f"{scores['exact_match_lexicon']:.2%}",
        "CER": f"{scores['cer']:.2%}",
    }
    rows = [cells.keys(), ("---",) * len(cells), map(str, cells.values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# === Peers ===


def _peers(given: argparse.Namespace) -> None:
    if given.fold and given.fold > given.folds:
        sys.exit(f"--fold {given.fold}: there are {given.folds} folds. Use a number from 1 to {given.folds}.")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("capt").setLevel(logging.INFO)
    chosen = [given.fold] if given.fold else range(1, given.folds + 1)
    peers = captcha_peers.Peers(given.images, given.labels, given.out.absolute(), given.folds, given.epochs)
    try:
        figures = peers.measure(chosen)
    except CaptError as error:
        sys.exit(str(error))
    print(f"{figures['labelled']:,} of {figures['input']:,} images have a label; {figures['failed']:,} failed\n")
    print(captcha_peers.table(figures["results"]))
    if given.json:
        print(json.dumps(figures))


# === Speed ===


def _speed(given: argparse.Namespace) -> None:
    """Prints the cost of `--count` images minus that of `FEW`, which is mostly start-up."""
    with tempfile.TemporaryDirectory() as directory:
        few, many = (_costs(Path(directory) / name, count) for name, count in (("few", FEW), ("many", given.count)))
    further = given.count - FEW
    figures = {step: _rates(many[step] - few[step], further) for step in many}
    print(json.dumps({"count": given.count, **figures, "load": [round(load, 1) for load in os.getloadavg()]}))


def _rates(took: Cost, images: int) -> dict[str, float]:
    return {
        "images_per_second": round(images / took.clock, 1),
        "cpu_ms_per_image": round(took.processor / images * 1e3, 2),
    }


def _costs(directory: Path, count: int) -> dict[str, Cost]:
    """Measures generation and preparation of a number of images."""
    data, store = directory / "data", directory / "store"
    folder = data / "words_captcha"
    return {
        "make": measure_command("synth", "captcha", data, "--num-images", count, "--seed", DEVELOPMENT.seed),
        "prepare": measure_command("prepare", "captcha", "--store", store, "--images", folder, "--labels", folder),
    }


if __name__ == "__main__":
    main()
