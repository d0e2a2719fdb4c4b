"""A recognizer as one TensorFlow graph: pixels to words, by the likeliest letters."""

from typing import Any

import tensorflow as tf

from trainer.export.run_graph import GraphRun
from trainer.models.charset import CHARACTERS
from trainer.models.recognizer_heads import decode_greedily
from trainer.runs.recognizer_run import RecognizerRun


class GraphRecognizer(GraphRun):
    """A recognizer's whole way from encoded images to words.

    Args:
        run: RecognizerRun. Whose network and model.
    """

    answers = "words"

    def __init__(self, run: RecognizerRun) -> None:
        super().__init__(run)
        # Hidden from tf.Module, which would track what Keras keeps for training as well.
        self._read = lambda pixels: run.model(pixels, training=False)[run.metadata.config.head]
        self._head = run.metadata.config.head
        self._letters = tf.constant(["", *CHARACTERS])

    def answer(self, features: Any) -> tuple[Any, Any]:
        """As `GraphRun` has it."""
        ids, scores = decode_greedily(self._head, self._read(features))
        return tf.strings.reduce_join(tf.gather(self._letters, ids), axis=1), scores
