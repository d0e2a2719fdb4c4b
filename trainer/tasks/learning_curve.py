"""Trains a CAPTCHA recognizer on nested fractions of the train split, and estimates the labels that it needs.

RUN/                                              the run itself, on the whole train split
RUN/learning_curve/1-of-4/                        a run on a fraction; every command accepts it
RUN/learning_curve/learning_curve.json, .png      the result and its figure
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from features.io.atomic_files import write
from features.io.locations import local_path
from features.store import open_store
from features.store.leases import hold_snapshot
from schemas.errors import CaptError, UsageError
from schemas.options.training import TrainCaptcha
from trainer.config import Hyperparameters, RecognizerTraining
from trainer.data.captcha_data import LabelledImages, load_labelled_images
from trainer.data.table_selection import TrainingTables
from trainer.data.training_data import TrainingData
from trainer.evaluation.learning_curve import MIN_POINTS, CurvePoint, describe_estimate, estimate_labels
from trainer.evaluation.learning_curve_figure import learning_curve_figure
from trainer.figures.figure_files import save_figure
from trainer.models.configs import RecognizerConfig
from trainer.runs.directory import LEARNING_CURVE, LEARNING_CURVE_FIGURE, LEARNING_CURVE_RESULT
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import Run, load_run
from trainer.tasks.captcha import CaptchaTask
from trainer.training.train import train

# Halves reach furthest, and a straight line in logarithms needs no more sizes. An eighth of a small set is too small to
# learn from.
_FRACTIONS = (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1))
_SMALL_SET_FRACTIONS = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1))
_SMALL_SET = 2000
_MIN_IMAGES = 50
_BATCH = 256
DEFAULT_TARGET = 0.99

_TrainedFraction = tuple[Fraction, RecognizerRun, int]  # with its number of train labels

_log = logging.getLogger("capt.training")


class FractionTask(CaptchaTask):
    """Trains on a fraction of the train split, as its user would train on a set of this size.

    The model is that of the whole split. Without `epochs`, the profile sets their number from the number of images, and
    few images are read more often.
    With `epochs`, a fraction is trained for as many steps as the whole split: with equal passes it would have a
    fraction of the steps, and its errors would be those of a short training instead of those of few labels.

    Args:
        fraction: The fraction, below 1.
        whole: Hyperparameters of the model that is trained on the whole split.
        steps_per_epoch: Steps per epoch of that training.
    """

    def __init__(self, fraction: Fraction, whole: RecognizerConfig, steps_per_epoch: int) -> None:
        self._fraction, self._whole, self._steps_per_epoch = fraction, whole, steps_per_epoch

    def load_data(self, tables: TrainingTables) -> TrainingData[LabelledImages]:
        data = super().load_data(tables)
        return _select_train_fraction(data, self._fraction)

    def resolve(
        self,
        hyperparameters: Hyperparameters[RecognizerTraining],
        tables: TrainingTables,
        data: TrainingData[LabelledImages],
        warm_start: Run | None = None,
    ) -> Hyperparameters[RecognizerTraining]:
        assert isinstance(hyperparameters.architecture, RecognizerConfig)
        from_whole = {name: getattr(self._whole, name) for name in ("filters", "language_model")}
        architecture = hyperparameters.architecture.model_copy(update=from_whole)
        resolved = super().resolve(replace(hyperparameters, architecture=architecture), tables, data, warm_start)
        if hyperparameters.training.epochs is None:
            return resolved
        steps = {"steps_per_epoch": self._steps_per_epoch}
        return replace(resolved, training=resolved.training.model_copy(update=steps))


def select_fraction(images: LabelledImages, fraction: Fraction) -> LabelledImages:
    """Returns the images whose content hash is in the first `fraction` of all hashes.

    A fraction contains every smaller one. An image stays in its fractions when others are added.
    """
    first = np.ascontiguousarray(images.keys[:, :8]).view(">u8").ravel()
    return images.select(first < np.uint64((fraction.numerator << 64) // fraction.denominator))


def _select_train_fraction(data: TrainingData[LabelledImages], fraction: Fraction) -> TrainingData[LabelledImages]:
    return replace(data, splits={**data.splits, "train": select_fraction(data.train, fraction)})


def train_learning_curve(options: TrainCaptcha) -> dict[str, Any]:
    """Trains the run and those on fractions, or resumes them, and writes and returns the learning curve.

    Returns:
        The result of the run with the key `learning_curve`; see `trainer.tasks.captcha.train_captcha`.

    Raises:
        UsageError: The train split has too few images, a fraction of it cannot be trained on, there is no validation
            split, or training would start from the weights of another run; and as `train`.
        CaptError: The labels of the validation split changed during the trainings; and as `train`.
    """
    task = CaptchaTask()
    _check_data(task, options)
    root = local_path(options.run_dir, "--run-dir").absolute()
    result = train(task, options)
    whole: RecognizerRun = load_run(root)
    fractions = _choose_fractions(result["images"]["train"])
    steps_per_epoch = result["steps"] // result["epochs"]
    runs, labels = {Fraction(1): whole}, {Fraction(1): result["images"]["train"]}
    for number, fraction in enumerate(reversed(fractions[:-1]), 2):
        directory = root / LEARNING_CURVE / f"{fraction.numerator}-of-{fraction.denominator}"
        _log.info("Learning curve, training %d of %d: %s of the train split.", number, len(fractions), fraction)
        task = FractionTask(fraction, whole.metadata.config, steps_per_epoch)
        trained = train(task, options.model_copy(update={"run_dir": str(directory)}))
        runs[fraction], labels[fraction] = load_run(directory), trained["images"]["train"]
    result["learning_curve"] = _write_curve(root, options, [(one, runs[one], labels[one]) for one in fractions])
    return result


def _choose_fractions(images: int) -> tuple[Fraction, ...]:
    """Returns the fractions for a number of images, in ascending order; the last one is 1."""
    fractions = _SMALL_SET_FRACTIONS if images < _SMALL_SET else _FRACTIONS
    return tuple(one for one in fractions if one * images >= _MIN_IMAGES)


def _check_data(task: CaptchaTask, options: TrainCaptcha) -> None:
    """Raises UsageError before the first training if options or data do not allow a learning curve."""
    location = "--learning-curve"
    if options.warm_start_from:
        message = "a run that --warm-start-from names may have seen images that a fraction leaves out"
        raise UsageError(message, location=location, hint="Omit one of the two options.")
    hyperparameters = task.parse(options.profile, options.settings())
    store = open_store(options.store)
    with hold_snapshot(store.path, lambda: task.select_tables(store, options, hyperparameters)) as tables:
        data = replace(task.load_data(tables), validate_on=hyperparameters.training.validation_split)
        if data.validation_split is None:
            hint = "Prepare a val split."
            raise UsageError("no label of val or test can be compared", location=location, hint=hint)
        _check_fractions(task, hyperparameters, tables, data)


def _check_fractions(
    task: CaptchaTask,
    hyperparameters: Hyperparameters[RecognizerTraining],
    tables: TrainingTables,
    data: TrainingData[LabelledImages],
) -> None:
    location, hint = "--learning-curve", "Label more images, or omit the option."
    fractions = _choose_fractions(len(data.train))
    if len(fractions) < MIN_POINTS + 1:
        required = int(_MIN_IMAGES / _SMALL_SET_FRACTIONS[0])
        message = f"the train split has {len(data.train):,} labelled images, and fractions need at least {required:,}"
        raise UsageError(message, location=location, hint=hint)
    whole = task.resolve(hyperparameters, tables, data).architecture
    assert isinstance(whole, RecognizerConfig)
    architecture = hyperparameters.architecture.model_copy(update={"language_model": whole.language_model})
    hyperparameters = replace(hyperparameters, architecture=architecture)
    for fraction in fractions[:-1]:
        _log.info("Learning curve, checking %s of the train split.", fraction)
        try:
            task.resolve(hyperparameters, tables, _select_train_fraction(data, fraction))
        except CaptError as error:
            message = f"{fraction} of the train split cannot be trained on: {error.message}"
            raise UsageError(message, location=location, hint=hint) from error


def _write_curve(root: Path, options: TrainCaptcha, runs: Sequence[_TrainedFraction]) -> dict[str, Any]:
    if len({run.metadata.validation_digest for _, run, _ in runs}) > 1:
        hint = "Choose a new --run-dir, and do not prepare images while it is trained."
        raise CaptError("the labels of validation changed between the trainings", location=str(root), hint=hint)
    points = [CurvePoint(labels, *_count_errors(options, run)) for _, run, labels in runs]
    target = DEFAULT_TARGET if options.target_exact_match is None else options.target_exact_match
    estimate = estimate_labels(points, target)
    curve = {
        "target_exact_match": target,
        "status": estimate.status,
        "reason": estimate.reason,
        "more_labels": estimate.more_labels,
        "more_labels_interval": None if estimate.low is None else [estimate.low, estimate.high],
        "statement": describe_estimate(estimate, points),
        "curve": vars(estimate.curve) if estimate.curve else None,
        "dispersion": round(estimate.dispersion, 3),
        "split": runs[0][1].metadata.validation_split,
        "sizes": [
            {
                "fraction": str(fraction),
                "labels": point.labels,
                "errors": point.errors,
                "evaluated": point.evaluated,
                "exact_match": point.exact_match,
                "interval": list(point.interval),
                "is_used": point.is_used,
                "run_dir": str(run.path),
            }
            for (fraction, run, _), point in zip(runs, points, strict=True)
        ],
    }
    directory = root / LEARNING_CURVE
    save_figure(learning_curve_figure(points, estimate), directory / LEARNING_CURVE_FIGURE)
    write(directory / LEARNING_CURVE_RESULT, f"{json.dumps(curve, indent=1)}\n".encode())
    return {**curve, "figure_path": str(directory / LEARNING_CURVE_FIGURE)}


def _count_errors(options: TrainCaptcha, run: RecognizerRun) -> tuple[int, int]:
    """Recognizes the whole validation split greedily; returns the numbers of wrong and of all labels."""
    store = open_store(options.store)
    with hold_snapshot(store.path, lambda: run.open_tables(store)) as tables:
        split = run.metadata.validation_split
        assert split is not None
        held_out = load_labelled_images(tables, split, run.metadata.folds_case)
        tables.features.ensure_local(held_out.rows)
        texts: list[str] = []
        for start in range(0, len(held_out.rows), _BATCH):
            texts += run.predict_texts(tables.features.read(held_out.rows[start : start + _BATCH]))
    errors = sum(text != label for text, label in zip(texts, held_out.labels, strict=True))
    return errors, len(texts)
