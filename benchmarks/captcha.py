"""Whole words read on CAPTCHAs like the published ones, on words and fonts that nothing was tuned on.

    python benchmarks/captcha.py make DATA [--set development|held_out] [--count N] [--labelled M]
    python benchmarks/captcha.py speed [--count N]     how fast pictures are made and prepared

All tuning is done on `DEVELOPMENT`; results are those on `HELD_OUT`, which shares with it neither word nor font nor
seed. Both were settled before any tuning. A set is made of one specification, train, val and test alike, as the
published set is. The words of `HELD_OUT` are of SCOWL, as `features.captchas.words` tells.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from features.captchas import DEFAULT_FONTS, Look, make_captchas_of, read_words, shipped_fonts, shipped_words

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
    def look(self) -> Look:
        """The words and the font files."""
        return Look(self.words, shipped_fonts(self.fonts))


DEVELOPMENT = Specification(shipped_words(), DEFAULT_FONTS, seed=1)
HELD_OUT = Specification(
    words=read_words(Path(__file__).with_name("captcha_words.txt")),
    fonts=("cmmi10", "cmtt10", "DejaVuSans", "STIXGeneralBolIta"),
    seed=20_261_120,
)
SETS = {"development": DEVELOPMENT, "held_out": HELD_OUT}


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
    speed = steps.add_parser("speed", help="make and prepare pictures, and say how fast")
    speed.add_argument("--count", type=int, default=3000)
    speed.set_defaults(step=_speed)
    given = parser.parse_args()
    given.step(given)


def _make(given: argparse.Namespace) -> None:
    chosen = SETS[given.set]
    print(json.dumps(make_captchas_of(chosen.look, given.data, given.count, chosen.seed, given.labelled)))


# === Speed ===


@dataclass(frozen=True)
class Cost:
    """What a program took: seconds by the clock, and seconds of processors."""

    clock: float
    processor: float

    def beyond(self, other: "Cost", pictures: int) -> dict[str, float]:
        """Pictures a second by the clock, and milliseconds of a processor a picture, beyond what another cost."""
        clock, processor = self.clock - other.clock, self.processor - other.processor
        return {
            "pictures_a_second": round(pictures / clock, 1),
            "processor_ms_a_picture": round(processor / pictures * 1e3, 2),
        }


def _speed(given: argparse.Namespace) -> None:
    """What `--count` pictures cost beyond what `FEW` do, which is mostly start-up."""
    with tempfile.TemporaryDirectory() as directory:
        few, many = (_costs(Path(directory) / name, count) for name, count in (("few", FEW), ("many", given.count)))
    further = given.count - FEW
    figures = {step: many[step].beyond(few[step], further) for step in many}
    print(json.dumps({"count": given.count, **figures, "load": [round(load, 1) for load in os.getloadavg()]}))


def _costs(directory: Path, count: int) -> dict[str, Cost]:
    """What making and preparing so many pictures takes."""
    data, store = directory / "data", directory / "store"
    folder = data / "words_captcha"
    return {
        "make": _cost("synth", "captcha", data, "--count", count, "--seed", DEVELOPMENT.seed),
        "prepare": _cost("prepare", "captcha", "--store", store, "--images", folder, "--labels", folder),
    }


def _cost(*command: str | int | Path) -> Cost:
    """What a command of capt takes."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-c", "import capt; capt.main()", *map(str, command), "--quiet"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, used)


if __name__ == "__main__":
    main()
