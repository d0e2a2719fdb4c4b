"""A run as one TensorFlow graph, from encoded images to answers.

images (JPEG or PNG bytes) → pixels → network → storage dtype and back → model → answers
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
    """A run's whole way from encoded images to answers; a task says how features are answered.

    Args:
        run: Run. Whose network and model.

    Attributes:
        answers: str. What the answers are called.
    """

    answers: ClassVar[str]

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._table_config = run.metadata.features.table_config
        self._network = _pruned((run.path / NETWORK).read_bytes())
        # What Keras wraps, a SavedModel tracks.
        self.weights = [weight.value for weight in run.model.weights]

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="images")])
    def serve(self, images: Any) -> dict[str, Any]:
        """Answers of a batch of encoded images; see `trainer.export.saved_model.export_run`."""
        pixels, problems = read_images(images, Resizer.from_table_config(self._table_config))
        texts, scores = self.answer(as_stored(self._network(pixels), self._table_config))
        is_fine = tf.equal(problems, 0)
        return {
            self.answers: tf.where(is_fine, texts, ""),
            "scores": tf.where(is_fine, scores, np.float32("nan")),
            "errors": tf.gather(tf.constant(PROBLEMS), problems),
        }

    def answer(self, features: Any) -> tuple[Any, Any]:
        """Texts, string [N], and scores, float32 [N], of features [N, *shape], in TensorFlow operations."""
        raise NotImplementedError


def as_stored(features: Any, table_config: FeatureTableConfig) -> Any:
    """Features as a table gives them back: rounded to its storage dtype, as `features.store.storage_dtypes` does.

    Args:
        features: float32 [N, …, channels].
        table_config: FeatureTableConfig. Names the dtype.
    """
    if table_config.dtype != "int8":
        return tf.cast(features, table_config.dtype)
    scale = tf.reduce_max(tf.abs(features), axis=-1, keepdims=True) / 127
    return tf.round(features / tf.where(scale > 0, scale, 1.0)) * scale


def _pruned(graph: bytes) -> Any:
    """A frozen network as a function of pixels."""
    definition = tf.compat.v1.GraphDef.FromString(graph)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    return wrapped.prune(f"{INPUT}:0", f"{OUTPUT}:0")
