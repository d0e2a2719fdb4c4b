"""Compares the values of one axis of an experiment: models, tables, or datasets.

    python benchmarks/comparisons.py DIR [--axis model] [--json]

DIR is the output directory of an experiment that `capt experiment run` has finished. Trials with other values of the
axis and equal values of all others, the seed included, are pairs. Per value, the table has the mean of each score over
its trials, the standard deviation of CIDEr-D over seeds, and its mean difference from the first value, with a
bootstrap interval over pairs of trials and test images. With several datasets, each also has a table. The last table
has the losses of each trial, the number of different captions, and their mean length.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StoreError
from trainer.evaluation.bootstrap import CONFIDENCE_LEVEL
from trainer.evaluation.evaluate import read_image_rows
from trainer.metrics.caption_metrics import TITLES
from workflows.experiments.config import SEED
from workflows.experiments.records import (
    ExperimentDirectory,
    ExperimentRecord,
    Trial,
    TrialResult,
    read_epochs,
    read_record,
)

METRIC = "cider_d"
COLUMNS = ("bleu_1", "bleu_4", "meteor", "rouge_l", METRIC)
_RESAMPLES = 2000
_ALL = "all"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FinishedTrial:
    """A trial with its result, the metrics of its epochs, and CIDEr-D and captions by test image."""

    trial: Trial
    result: TrialResult
    epochs: list[dict[str, Any]]
    images: dict[str, float]
    captions: dict[str, str]

    def mean(self, metric: str, images: Sequence[str]) -> float | None:
        """Returns the score of the run if these are all images; otherwise the mean of CIDEr-D over them."""
        if len(images) == len(self.images):
            score: float | None = self.result.evaluated.get(metric)
            return score
        return float(np.mean(self.values(images))) if metric == METRIC else None

    def values(self, images: Sequence[str]) -> Floats:
        """Returns CIDEr-D per image."""
        return np.array([self.images[image] for image in images])


def read_trials(directory: Path) -> list[FinishedTrial]:
    """Reads the finished trials of an experiment. Raises StoreError if there are none."""
    records = ExperimentDirectory(directory)
    record = read_record(records.experiment, ExperimentRecord)
    trials = []
    for trial in record.trials if record else ():
        result = read_record(records.result(trial.name), TrialResult)
        if result and result.status == "done":
            rows = read_image_rows(records.evaluation(result))
            images = {row["image"]: float(row[METRIC]) for row in rows}
            captions = {row["image"]: row["prediction"] for row in rows}
            trials.append(FinishedTrial(trial, result, read_epochs(records.run(trial.name)), images, captions))
    if not trials:
        raise StoreError("the experiment has no finished trial", location=str(directory))
    return trials


def compare(trials: Sequence[FinishedTrial], axis: str) -> dict[str, list[dict[str, Any]]]:
    """Compares the values of an axis; one list of rows for all images, and one per dataset if there are several."""
    if axis not in trials[0].trial.position:
        raise StoreError(
            f"the experiment has no axis {axis!r}", hint=f"Use one of {', '.join(trials[0].trial.position)}."
        )
    common = sorted(set.intersection(*(set(one.images) for one in trials)))
    groups = {_ALL: common}
    if len({name for one in trials for name in one.trial.datasets}) > 1:
        for image in common:
            groups.setdefault(image.partition("/")[0], []).append(image)
    return {name: _compare_on(trials, axis, images) for name, images in groups.items()}


def _compare_on(trials: Sequence[FinishedTrial], axis: str, images: Sequence[str]) -> list[dict[str, Any]]:
    values = list(dict.fromkeys(one.trial.position[axis] for one in trials))
    by_value = {value: [one for one in trials if one.trial.position[axis] == value] for value in values}
    rows = []
    for value, group in by_value.items():
        means = {name: [score for one in group if (score := one.mean(name, images)) is not None] for name in COLUMNS}
        scores = {name: float(np.mean(found)) for name, found in means.items() if len(found) == len(group)}
        seeds = [float(np.mean(one.values(images))) for one in group]
        row = {
            "value": value,
            "trials": len(group),
            "images": len(images),
            **scores,
            "seed_deviation": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
            "training_seconds": float(np.mean([one.result.seconds["training"] for one in group])),
            "difference": None,
        }
        if value != values[0]:
            row |= difference(by_value[values[0]], group, axis, images)
        rows.append(row)
    return rows


def difference(
    old: Sequence[FinishedTrial], new: Sequence[FinishedTrial], axis: str, images: Sequence[str]
) -> dict[str, Any]:
    """Returns the mean paired difference of CIDEr-D, its confidence interval, and the number of pairs."""
    partners = {_other_axes(one, axis): one for one in old}
    pairs = [(partners[key], one) for one in new if (key := _other_axes(one, axis)) in partners]
    if not pairs:
        return {"difference": None, "pairs": 0}
    differences = np.array([b.values(images) - a.values(images) for a, b in pairs])
    low, high = resample(differences)
    return {"difference": float(differences.mean()), "interval": [low, high], "pairs": len(pairs)}


def resample(differences: Floats, seed: int = 0) -> tuple[float, float]:
    """Returns the confidence interval of the mean of [pairs, images], both resampled with replacement."""
    random = np.random.default_rng(seed)
    pairs, images = differences.shape
    means = []
    for _ in range(_RESAMPLES):
        weights = np.bincount(random.integers(0, images, images), minlength=images) / images
        means.append((differences @ weights)[random.integers(0, pairs, pairs)].mean())
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _other_axes(one: FinishedTrial, axis: str) -> tuple[Any, ...]:
    return tuple(value for name, value in one.trial.position.items() if name != axis)


def table(axis: str, rows: Sequence[dict[str, Any]]) -> str:
    """Formats rows as a Markdown table; scores × 100."""
    titles = [axis, "seeds", *(TITLES[name] for name in COLUMNS), "sd over seeds", "CIDEr-D − first", "training"]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    for row in rows:
        scores = " | ".join(f"{100 * row[name]:.1f}" if name in row else "–" for name in COLUMNS)
        deviation = "–" if row["seed_deviation"] is None else f"{100 * row['seed_deviation']:.1f}"
        change = "–"
        if row["difference"] is not None:
            low, high = row["interval"]
            change = f"{100 * row['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        seconds = f"{row['training_seconds']:.0f} s"
        lines.append(f"| `{row['value']}` | {row['trials']} | {scores} | {deviation} | {change} | {seconds} |")
    return "\n".join(lines)


def describe(one: FinishedTrial) -> dict[str, Any]:
    """Returns the loss of a trial's last epoch, the least validation loss, and numbers of its captions."""
    best = min(one.epochs, key=lambda epoch: float(epoch["val_loss"]))
    return {
        "trial": one.trial.name,
        "last_loss": one.epochs[-1]["loss"],
        "val_loss": best["val_loss"],
        "val_error": 1 - best["val_token_accuracy"],
        "different_captions": len(set(one.captions.values())),
        "words": float(np.mean([len(caption.split()) for caption in one.captions.values()])),
    }


def trial_table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the trials as a Markdown table."""
    titles = ("trial", "loss in the last epoch", "validation loss", "next-word error", "different captions", "words")
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    lines += [
        f"| `{row['trial']}` | {row['last_loss']:.2f} | {row['val_loss']:.2f} | {row['val_error']:.0%} | "
        f"{row['different_captions']:,} | {row['words']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR", help="output directory of the experiment")
    parser.add_argument("--axis", default="model", help=f"axis to compare, such as model, features or {SEED}")
    parser.add_argument("--json", action="store_true", help="also print the results as one line of JSON")
    options = parser.parse_args()
    trials = read_trials(options.directory)
    compared = compare(trials, options.axis)
    for name, rows in compared.items():
        print(f"\n{name}: {rows[0]['images']:,} images\n\n{table(options.axis, rows)}")
    described = list(map(describe, trials))
    print(f"\ntrials\n\n{trial_table(described)}")
    if options.json:
        print(json.dumps(compared | {"trials": described}))


if __name__ == "__main__":
    main()
