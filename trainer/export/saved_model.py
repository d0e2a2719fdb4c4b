"""Runs `capt export`: writes a run as a SavedModel that reads encoded images and needs TensorFlow only."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from features.extractors.frozen_graph import FrozenGraph
from features.extractors.runtimes import read_frozen_graph
from features.extractors.weights import generate_noise_images
from features.io.atomic_files import make_directory, replace_tree_atomically, temporary_path
from features.io.file_trees import count_bytes
from features.io.locations import local_path
from features.io.plain_paths import plain_path
from features.runtime.keras_settings import keras
from schemas.errors import UsageError
from schemas.options.inference import Export
from trainer.export.run_graph import GraphRun
from trainer.runs.run import Run, load_run

_COMPARED_IMAGES = 8
_SPECIAL_CHARACTERS = re.compile(r"[\[\]*?\\]")

_log = logging.getLogger("capt.export")


def export_run(options: Export) -> dict[str, Any]:
    """Writes a run as a SavedModel.

    The signature `serving_default` has the input `images`, string [N], JPEG or PNG files. Its outputs are `captions`
    or, for a recognizer, `labels`, string [N]; `scores`, float32 [N], their log-probabilities; and `errors`, string
    [N], empty for readable images. A captioner's vocabulary is an asset.

    Recognizers use greedy decoding. Their further outputs are `confidence`, float32 [N], the probabilities of the
    labels, and `character_confidence`, float32 [N, longest], those of their characters, padded with 0.

    Returns:
        `output`, `bytes`, `vocabulary` (number of token IDs, or of characters), and `precision_difference`: the norm of
        the difference between the extractor's features in float32, as in the graph, and in the run's precision,
        relative to the norm of the former.

    Raises:
        UsageError: The directory exists, an option does not apply to the run, or the backend is not TensorFlow.
    """
    target = local_path(options.out).absolute()
    opened = load_run(options.run, options.epoch)
    if keras.backend.backend() != "tensorflow":
        raise UsageError("export requires the TensorFlow backend", hint="Unset KERAS_BACKEND. Any run can be exported.")
    if target.exists():
        raise UsageError("the output directory already exists", location=str(target), hint="Choose a new directory.")
    with plain_path(opened.path) as run_dir:
        served, vocabulary = opened.task.export_graph(opened, options, run_dir)
        _write(served, target)
    if _SPECIAL_CHARACTERS.search(str(target)):
        _log.warning(
            "%s: TensorFlow reads [ ] * ? \\ in a path as a pattern, so it may fail to load the SavedModel. Move it.",
            target,
        )
    return {
        "output": str(target),
        "bytes": count_bytes(target),
        "vocabulary": vocabulary,
        "precision_difference": _precision_difference(opened),
    }


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
    pixels = generate_noise_images(_COMPARED_IMAGES, run.resizer.height, run.resizer.width, 0).astype(run.resizer.dtype)
    graph = read_frozen_graph(run.require_extractor(), table_config)
    exact, own = (FrozenGraph(graph, precision).predict(pixels) for precision in ("float32", table_config.precision))
    return float(np.linalg.norm(own - exact) / np.linalg.norm(exact))
