"""Boards: a trial's hyper-parameters and scores for TensorBoard, beside the curves that its training left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api

from trainer.runs.directory import LOGS
from workflows.tasks import Score


def write_trial_summary(root: Path, trial: str, settings: Mapping[str, Any], scores: Mapping[str, Score]) -> None:
    """Write a trial's settings and scores into the logs of its run, in place of those of an earlier time.

    Args:
        root: Path. The run directory.
        trial: str. What TensorBoard is to call it.
        settings: mapping. Settings by name; what is neither number, truth value nor text is written as text.
        scores: mapping of Score. By name.
    """
    logs = root / LOGS
    for path in logs.glob("events.*"):
        path.unlink()
    writer = tf.summary.create_file_writer(str(logs))
    with writer.as_default():
        api.hparams({name: _plain(value) for name, value in settings.items()}, trial_id=trial)
        for name, score in scores.items():
            tf.summary.scalar(name, score.value, step=0)
    writer.close()


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
