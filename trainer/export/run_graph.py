"""Builds a TensorFlow graph of a run, from encoded images to captions or labels.

images (JPEG or PNG bytes) → pixels → extractor → storage dtype and back → model → texts and scores
"""

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from features.extractors.frozen_graph import INPUT, OUTPUT
from features.images.resizer import Resizer
from schemas.table_config import FeatureTableConfig
from trainer.export.image_graph import PROBLEMS, read_images
from trainer.runs.directory import NETWORK
from trainer.runs.run import Run


class GraphRun(tf.Module):
    """The graph of a run. A subclass implements `predict`.

    Args:
        run: The run.

    Attributes:
        output_name: Name of the texts in the output.
    """

    output_name: ClassVar[str]

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._table_config = run.metadata.features.table_config
        self._extract = _import_frozen_graph((run.path / NETWORK).read_bytes())
        # A SavedModel tracks the variables inside Keras variables.
        self.weights = [weight.value for weight in run.model.weights]

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="images")])
    def serve(self, images: Any) -> dict[str, Any]:
        """Predicts texts for encoded images; see `trainer.export.saved_model.export_run`."""
        pixels, problems = read_images(images, Resizer.from_table_config(self._table_config))
        texts, scores = self.predict(round_to_storage_dtype(self._extract(pixels), self._table_config))
        is_readable = tf.equal(problems, 0)
        return {
            self.output_name: tf.where(is_readable, texts, ""),
            "scores": tf.where(is_readable, scores, np.float32("nan")),
            "errors": tf.gather(tf.constant(PROBLEMS), problems),
        }

    def predict(self, features: Any) -> tuple[Any, Any]:
        """Returns texts, string [N], and scores, float32 [N], for features [N, *shape]."""
        raise NotImplementedError


def round_to_storage_dtype(features: Any, table_config: FeatureTableConfig) -> Any:
    """Rounds features float32 [N, …, channels] as a feature table does (`features.store.storage_dtypes`)."""
    if table_config.dtype != "int8":
        return tf.cast(features, table_config.dtype)
    scale = tf.reduce_max(tf.abs(features), axis=-1, keepdims=True) / 127
    return tf.round(features / tf.where(scale > 0, scale, 1.0)) * scale


def _import_frozen_graph(graph: bytes) -> Any:
    """Returns a frozen extractor as a function of pixels."""
    definition = tf.compat.v1.GraphDef.FromString(graph)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    return wrapped.prune(f"{INPUT}:0", f"{OUTPUT}:0")
