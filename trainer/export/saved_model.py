"""`capt export`: a run as a SavedModel that takes encoded images, and needs nothing but TensorFlow."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from features.extractors.frozen_graph import load_frozen_graph
from features.extractors.random_weights import generate_noise_images
from features.images.resizer import Resizer
from features.io.atomic_files import make_directory, replace_tree_atomically, temporary_path
from features.io.locations import local_path
from features.io.plain_paths import plain_path
from features.runtime.keras_settings import keras
from schemas.errors import UsageError
from schemas.options.inference import Export
from trainer.export.run_graph import GraphRun
from trainer.runs.directory import NETWORK
from trainer.runs.run import Run, load_run

_COMPARED_IMAGES = 8
_PATTERN = re.compile(r"[\[\]*?\\]")

_log = logging.getLogger("capt.export")


def export_run(options: Export) -> dict[str, Any]:
    """Write a run as a SavedModel.

    Its signature `serving_default` takes `images`, string [N], JPEG or PNG each, and gives `captions`, or `words` of a
    recognizer, string [N], `scores` float32 [N] (natural logarithm of each one's probability) and `errors` string [N],
    empty where an image was read. A captioner's vocabulary is an asset; words are read by their likeliest letters.

    Args:
        options: The run, the directory to create, and how captions are chosen.

    Returns:
        dict: `output`, `bytes`, `vocabulary` (ids; letters of a recognizer), and `precision_difference`: how far the
        network's features in float32, as the graph computes them, are from those of the run's precision, relative to
        their norm (0 where that is float32).

    Raises:
        UsageError: the directory exists, an option is not for the run, or the backend is not TensorFlow.
    """
    target = local_path(options.out).absolute()
    opened = load_run(options.run)
    _check(target)
    with plain_path(opened.path) as run_dir:
        served, vocabulary = opened.task.export_graph(opened, options, run_dir)
        _write(served, target)
    if _PATTERN.search(str(target)):
        _log.warning(
            "%s: TensorFlow takes [ ] * ? \\ in a path for a pattern, so it may not load the SavedModel here. Move it.",
            target,
        )
    return {
        "output": str(target),
        "bytes": sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
        "vocabulary": vocabulary,
        "precision_difference": _precision_difference(opened),
    }


def _check(target: Path) -> None:
    if keras.backend.backend() != "tensorflow":
        raise UsageError("a SavedModel is made on TensorFlow", hint="unset KERAS_BACKEND; any run can be exported")
    if target.exists():
        raise UsageError("it exists", location=str(target), hint="name a new directory")


def _write(served: GraphRun, target: Path) -> None:
    make_directory(target.parent)
    temporary = temporary_path(target)
    try:
        with plain_path(target.parent) as parent:
            tf.saved_model.save(served, str(parent / temporary.name), signatures={"serving_default": served.serve})
        replace_tree_atomically(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _precision_difference(run: Run) -> float:
    table_config = run.metadata.features.table_config
    if table_config.precision == "float32":
        return 0.0
    fitting = Resizer.from_table_config(table_config)
    pixels = generate_noise_images(_COMPARED_IMAGES, fitting.height, fitting.width, 0).astype(fitting.dtype)
    exact = load_frozen_graph(run.path / NETWORK, "float32").predict(pixels)
    own = load_frozen_graph(run.path / NETWORK, table_config.precision).predict(pixels)
    return float(np.linalg.norm(own - exact) / np.linalg.norm(exact))
