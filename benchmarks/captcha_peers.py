"""Trains capt's recognizer and that of Keras' OCR example on the folds of a set, and scores both on the same images.

    OUT/store/                the whole set, for its images and labels
    OUT/comparison.json       what the results depend on
    OUT/fold-1/labels.csv     labels and splits of fold 1
    OUT/fold-1/store/, run/   of capt
    OUT/fold-1/capt.json, keras_ocr.json    results

Both recognizers have the same train, val and test images. capt trains in a process of its own: two networks with CTC
losses of different sizes in one process prevent TensorFlow from optimizing the graph of the second. An interrupted
training starts anew, so that its cost is that of one training; results that exist are kept.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from captcha_folds import SPLITS, LabelledImage, read_images, write_label_table
from cost import Cost, measure_command, measure_cost

import capt
from features.io.atomic_files import write
from schemas.errors import CaptError
from trainer.evaluation.recognition_metrics import RecognitionScores

Result = dict[str, Any]

_log = logging.getLogger("capt.peers")


@dataclass(frozen=True)
class Peers:
    """A comparison on one set.

    Args:
        images: Directory or archive of the set.
        labels: Value of `capt prepare captcha --labels`; None for its default.
        out: Output directory.
        folds: Number of folds.
        epochs: Number of epochs of both recognizers for a trial; None for their own.
    """

    images: str
    labels: str | None
    out: Path
    folds: int
    epochs: int | None = None

    def measure(self, folds: Sequence[int]) -> dict[str, Any]:
        """Measures the given folds, from 1, where results are missing.

        Returns:
            `input`, `failed` and `labelled` (numbers of images of the set), and `results`: those of all finished folds
            by recognizer.
        """
        prepared = capt.prepare_captcha(store=str(self.out / "store"), images=[self.images], labels=self.labels)
        images = read_images(self.out / "store", self.images)
        self._check(images)
        for number in folds:
            Fold(self, number).measure(images)
        done = {name: self._read_results(name) for name in RECOGNIZERS}
        counts = {"input": prepared["input"], "failed": prepared["failed"], "labelled": len(images)}
        return {**counts, "results": done}

    def _check(self, images: Sequence[LabelledImage]) -> None:
        """Raises CaptError if the results in `out` are those of other settings."""
        rows = [(image.name, image.label, image.row["key"].hex()) for image in images]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        settings = {"folds": self.folds, "epochs": self.epochs, "images": len(images), "sha256": digest}
        path = self.out / "comparison.json"
        if not path.is_file():
            write(path, json.dumps(settings).encode())
        elif (found := json.loads(path.read_text())) != settings:
            changed = ", ".join(name for name, value in settings.items() if found[name] != value)
            message = f"the directory has results of other images or options: {changed}"
            raise CaptError(message, location=str(self.out), hint="Use another OUT.")

    def _read_results(self, recognizer: str) -> list[Result]:
        paths = (Fold(self, number).result(recognizer) for number in range(1, self.folds + 1))
        return [json.loads(path.read_text()) for path in paths if path.is_file()]


@dataclass(frozen=True)
class Fold:
    """One fold of a comparison; `number` is from 1."""

    peers: Peers
    number: int

    @property
    def directory(self) -> Path:
        """Directory of the fold."""
        return self.peers.out / f"fold-{self.number}"

    @property
    def store(self) -> Path:
        """Store with the images of the fold and their splits."""
        return self.directory / "store"

    @property
    def run(self) -> Path:
        """Run directory of capt's recognizer."""
        return self.directory / "run"

    def result(self, recognizer: str) -> Path:
        """The file with the result of a recognizer."""
        return self.directory / f"{recognizer}.json"

    def measure(self, images: Sequence[LabelledImage]) -> None:
        """Trains and scores each recognizer that has no result."""
        missing = [name for name in RECOGNIZERS if not self.result(name).is_file()]
        if not missing:
            return
        labels = self.directory / "labels.csv"
        write_label_table(labels, images, self.number, self.peers.folds)
        capt.prepare_captcha(store=str(self.store), images=[self.peers.images], labels=str(labels))
        prepared = read_images(self.store, self.peers.images)
        if len(prepared) != len(images):
            message = f"{len(prepared):,} of {len(images):,} images are prepared"
            raise CaptError(message, location=str(labels), hint="Run it again, with another OUT.")
        counts = {split: sum(image.split == split for image in prepared) for split in SPLITS}
        for name in missing:
            result = {"fold": self.number, "images": counts, **RECOGNIZERS[name](self, prepared)}
            write(self.result(name), json.dumps(result).encode())
            _log.info("fold %d, %s: %s", self.number, name, json.dumps(result))


def measure_keras_ocr(fold: Fold, images: Sequence[LabelledImage]) -> Result:
    """Trains the recognizer of Keras' OCR example on a fold and scores it."""
    # It imports Keras, which takes seconds.
    import keras
    from keras_ocr import MAX_EPOCHS, KerasOcr, LabelledPixels, load_pixels

    def load(split: str) -> LabelledPixels:
        chosen = [image for image in images if image.split == split]
        return LabelledPixels(load_pixels([image.read() for image in chosen]), tuple(image.label for image in chosen))

    keras.utils.set_random_seed(fold.number)
    parts = {split: load(split) for split in SPLITS}
    recognizer, epochs = KerasOcr(parts["train"].labels), 0

    def train() -> None:
        nonlocal epochs
        epochs = recognizer.fit(parts["train"], parts["val"], fold.peers.epochs or MAX_EPOCHS)

    cost = measure_cost(train)
    test = parts["test"]
    scores = RecognitionScores(test.labels, tuple(recognizer.recognize(test.pixels)))
    keras.backend.clear_session()
    return _describe(cost, epochs, scores.to_dict())


def measure_capt(fold: Fold, images: Sequence[LabelledImage]) -> Result:
    """Trains capt's recognizer with its defaults on a fold and scores it without a lexicon."""
    shutil.rmtree(fold.run, ignore_errors=True)
    limit = ("--epochs", fold.peers.epochs) if fold.peers.epochs else ()
    cost = measure_command("train", "captcha", "--store", fold.store, "--run-dir", fold.run, *limit)
    epochs = len((fold.run / "metrics.jsonl").read_text().splitlines())
    scores = capt.evaluate(runs=[str(fold.run)], store=str(fold.store), split="test")
    return _describe(cost, epochs, scores["greedy"])


def _describe(cost: Cost, epochs: int, scores: Mapping[str, Any]) -> Result:
    return {
        "epochs": epochs,
        "seconds": round(cost.clock, 1),
        "cpu_seconds": round(cost.processor, 1),
        "load": round(os.getloadavg()[2], 1),
        **scores,
    }


RECOGNIZERS: dict[str, Callable[[Fold, Sequence[LabelledImage]], Result]] = {
    "keras_ocr": measure_keras_ocr,
    "capt": measure_capt,
}
_TITLES = {"keras_ocr": "Keras OCR example", "capt": "capt"}


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """Formats the results of the finished folds, and their means, as a Markdown table."""
    titles = ["recognizer", "fold", *SPLITS, "epochs", "exact match (95% interval)", "wall minutes", "CPU minutes"]
    rows = [titles, ["---"] * len(titles)]
    for name, folds in results.items():
        for one in folds:
            counts = [f"{one['images'][split]:,}" for split in SPLITS]
            low, high = one["interval"]
            match = f"{one['exact_match']:.2%} ({low:.2%}–{high:.2%})"
            rows.append([_TITLES[name], str(one["fold"]), *counts, str(one["epochs"]), match, *_minutes([one])])
        if folds:
            mean = [f"{fmean(one['images'][split] for one in folds):,.0f}" for split in SPLITS]
            mean += [
                f"{fmean(one['epochs'] for one in folds):.0f}",
                f"{fmean(one['exact_match'] for one in folds):.2%}",
            ]
            rows.append([_TITLES[name], f"mean of {len(folds)}", *mean, *_minutes(folds)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _minutes(folds: Sequence[Result]) -> list[str]:
    return [f"{fmean(one[key] for one in folds) / 60:.1f}" for key in ("seconds", "cpu_seconds")]
