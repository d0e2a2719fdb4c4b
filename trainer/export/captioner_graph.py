"""A captioner as one TensorFlow graph: features to captions, by beam search."""

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
    """A captioner's whole way from encoded images to captions; its vocabulary is an asset.

    Args:
        run: CaptionerRun. Whose network, model and vocabulary.
        decoding: GenerationConfig. Without a temperature.
        run_dir: The run directory, by a path that TensorFlow takes literally (`features.io.plain_paths`).
    """

    answers = "captions"

    def __init__(self, run: CaptionerRun, decoding: GenerationConfig, run_dir: Path) -> None:
        super().__init__(run)
        self._decoder = BeamDecoder(run.model, decoding)
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

    def answer(self, features: Any) -> tuple[Any, Any]:
        """As `GraphRun` has it."""
        tokens, scores, _ = self._decoder.decode(features)
        return self._text(tokens[:, 0]), scores[:, 0]

    def _text(self, ids: Any) -> Any:
        words = tf.RaggedTensor.from_tensor(self.words.lookup(tf.cast(ids, tf.int64)), lengths=_lengths(ids))
        return tf.strings.reduce_join(words, axis=-1, separator=" ")


def _lengths(ids: Any) -> Any:
    return tf.reduce_sum(tf.cast(tf.not_equal(ids, PAD), tf.int64), axis=1)
