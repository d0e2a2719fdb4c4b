"""Builds the TensorFlow graph of a captioner, with beam search."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from schemas.table_config import PAD
from trainer.decoding.beam_search import BeamDecoder
from trainer.decoding.generation import GenerationConfig
from trainer.export.run_graph import GraphRun
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.directory import VOCABULARY


class GraphCaptioner(GraphRun):
    """The graph of a captioner; its vocabulary is an asset.

    Args:
        run: The run.
        config: Generation config without a temperature.
        run_dir: The run directory, as a path without characters that are special to TensorFlow
            (`features.io.plain_paths`).
    """

    output_name = "captions"

    def __init__(self, run: CaptionerRun, config: GenerationConfig, run_dir: Path) -> None:
        super().__init__(run)
        self._decoder = BeamDecoder(run.model, config)
        self.words = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(run_dir / VOCABULARY),
                key_dtype=tf.int64,
                key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                value_dtype=tf.string,
                value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            default_value="",
        )

    def predict(self, features: Any) -> tuple[Any, Any]:
        tokens, scores, _ = self._decoder.decode(features)
        return self._join_words(tokens[:, 0]), scores[:, 0]

    def _join_words(self, tokens: Any) -> Any:
        lengths = tf.reduce_sum(tf.cast(tf.not_equal(tokens, PAD), tf.int64), axis=1)
        words = tf.RaggedTensor.from_tensor(self.words.lookup(tf.cast(tokens, tf.int64)), lengths=lengths)
        return tf.strings.reduce_join(words, axis=-1, separator=" ")
