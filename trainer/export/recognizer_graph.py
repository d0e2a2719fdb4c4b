"""Builds the TensorFlow graph of a recognizer, with greedy decoding."""

from typing import Any

import tensorflow as tf

from trainer.export.run_graph import GraphRun
from trainer.models.charset import CHARACTERS
from trainer.models.recognizer_heads import decode_greedily
from trainer.runs.recognizer_run import RecognizerRun


class GraphRecognizer(GraphRun):
    """The graph of a recognizer.

    Args:
        run: The run.
    """

    output_name = "labels"

    def __init__(self, run: RecognizerRun) -> None:
        super().__init__(run)
        # In a lambda, because tf.Module would also track the training state of the Keras model.
        self._compute_logits = lambda pixels: run.model(pixels, training=False)[run.metadata.config.head]
        self._head = run.metadata.config.head
        self._characters = tf.constant(["", *CHARACTERS])

    def predict(self, features: Any) -> tuple[Any, Any]:
        ids, scores = decode_greedily(self._head, self._compute_logits(features))
        return tf.strings.reduce_join(tf.gather(self._characters, ids), axis=1), scores
