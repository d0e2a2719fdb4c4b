"""Builds the TensorFlow graph of a run, from encoded images to captions or labels.

images (JPEG or PNG bytes) → pixels → extractor → storage dtype and back → model → texts and scores
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from features.extractors.frozen_graph import INPUT, OUTPUT
from features.images.resize import Resizer
from schemas.table_config import PAD
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.export.image_graph import PROBLEMS, read_images
from trainer.models.charset import CHARACTERS
from trainer.models.recognizer_heads import decode_greedily
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.directory import FROZEN_EXTRACTOR, VOCABULARY
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import Run


class GraphRun(tf.Module):
    """The graph of a run, whose texts are the output `output_name`.

    `predict` maps features [N, *shape] to texts, string [N], and scores, float32 [N]. It may read a table, the `asset`.
    """

    def __init__(
        self, run: Run, output_name: str, predict: Callable[[Any], tuple[Any, Any]], asset: Any = None
    ) -> None:
        super().__init__()
        self._output_name, self._predict, self.asset = output_name, predict, asset
        self._table_config = run.metadata.features.table_config
        definition = tf.compat.v1.GraphDef.FromString((run.path / FROZEN_EXTRACTOR).read_bytes())
        extractor = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
        self._extract = extractor.prune(f"{INPUT}:0", f"{OUTPUT}:0")
        # A SavedModel tracks the variables inside Keras variables.
        self.weights = [weight.value for weight in run.model.weights]

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="images")])
    def serve(self, images: Any) -> dict[str, Any]:
        """Predicts texts for encoded images; see `trainer.export.saved_model.export_run`."""
        pixels, problems = read_images(images, Resizer.from_table_config(self._table_config))
        features = self._extract(pixels)
        # The feature table rounds in the same way (`features.store.storage_dtypes`).
        if self._table_config.dtype == "int8":
            scale = tf.reduce_max(tf.abs(features), axis=-1, keepdims=True) / 127
            features = tf.round(features / tf.where(scale > 0, scale, 1.0)) * scale
        else:
            features = tf.cast(features, self._table_config.dtype)
        texts, scores = self._predict(features)
        is_readable = tf.equal(problems, 0)
        return {
            self._output_name: tf.where(is_readable, texts, ""),
            "scores": tf.where(is_readable, scores, np.float32("nan")),
            "errors": tf.gather(tf.constant(PROBLEMS), problems),
        }


def build_captioner_graph(run: CaptionerRun, config: GenerationConfig, run_dir: Path) -> GraphRun:
    """Builds the graph of a captioner, for a `config` without a temperature; its vocabulary is an asset.

    `run_dir` is the run directory without characters that are special to TensorFlow (`features.io.plain_paths`).
    """
    decoder = make_decoder(run.model, config)
    vocabulary = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(run_dir / VOCABULARY),
            key_dtype=tf.int64,
            key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            value_dtype=tf.string,
            value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        ),
        default_value="",
    )

    def predict(features: Any) -> tuple[Any, Any]:
        beams, scores, _ = decoder.decode(features)
        tokens = beams[:, 0]
        lengths = tf.reduce_sum(tf.cast(tf.not_equal(tokens, PAD), tf.int64), axis=1)
        words = tf.RaggedTensor.from_tensor(vocabulary.lookup(tf.cast(tokens, tf.int64)), lengths=lengths)
        return tf.strings.reduce_join(words, axis=-1, separator=" "), scores[:, 0]

    return GraphRun(run, "captions", predict, vocabulary)


def build_recognizer_graph(run: RecognizerRun) -> GraphRun:
    """Builds the graph of a recognizer, with greedy decoding."""
    head = run.metadata.config.head

    def predict(pixels: Any) -> tuple[Any, Any]:
        ids, scores = decode_greedily(head, run.model(pixels, training=False)[head])
        return tf.strings.reduce_join(tf.gather(tf.constant(["", *CHARACTERS]), ids), axis=1), scores

    return GraphRun(run, "labels", predict)
