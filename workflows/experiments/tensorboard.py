"""Writes the hyperparameters and scores of a trial for TensorBoard, next to the curves of its training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api

from trainer.evaluation.bootstrap import Score
from trainer.runs.directory import LOGS


def write_trial_summary(run_dir: Path, trial: str, settings: Mapping[str, Any], scores: Mapping[str, Score]) -> None:
    """Replaces the settings and scores of a trial in the logs of its run.

    Args:
        run_dir: The run directory.
        trial: Name of the trial in TensorBoard.
        settings: Settings by name. Values other than numbers, booleans and strings are written as strings.
        scores: Scores by name.
    """
    logs = run_dir / LOGS
    for path in logs.glob("events.*"):
        path.unlink()
    writer = tf.summary.create_file_writer(str(logs))
    with writer.as_default():
        api.hparams({name: _to_hparam(value) for name, value in settings.items()}, trial_id=trial)
        for name, score in scores.items():
            tf.summary.scalar(name, score.value, step=0)
    writer.close()


def _to_hparam(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
