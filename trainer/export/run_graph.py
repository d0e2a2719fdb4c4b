"""Builds the TensorFlow graph of a run, from encoded images to captions or labels.

images (JPEG or PNG bytes) → pixels → extractor → storage dtype and back → model → texts and scores
"""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from features.extractors.frozen_graph import INPUT, OUTPUT
from features.extractors.runtimes import read_frozen_graph
from features.images.resize import Resizer
from features.text.charset import BLANK
from features.text.visual_order import LEFT_TO_RIGHT, NEUTRAL, RIGHT_TO_LEFT, STRONG, is_right_to_left
from schemas.choices import StorageDtype
from schemas.table_config import PAD
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.export.image_graph import PROBLEMS, read_images
from trainer.models.recognizer_heads import decode_greedily, greedy_confidence
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.directory import VOCABULARY
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import Run

_OVERFLOW = "a feature is NaN or infinite, or does not fit the storage dtype"


class GraphRun(tf.Module):
    """The graph of a run, whose texts are the output `output_name`.

    `predict` maps features [N, *shape] to texts, string [N], and further outputs by name, float32 [N, …], such as
    `scores`. It may read a table, the `asset`.
    """

    def __init__(
        self, run: Run, output_name: str, predict: Callable[[Any], tuple[Any, dict[str, Any]]], asset: Any = None
    ) -> None:
        super().__init__()
        self._output_name, self._predict, self.asset = output_name, predict, asset
        self._table_config = run.metadata.features.table_config
        graph = read_frozen_graph(run.require_extractor(), self._table_config)
        definition = tf.compat.v1.GraphDef.FromString(graph)
        extractor = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
        self._extract = extractor.prune(f"{INPUT}:0", f"{OUTPUT}:0")
        # A SavedModel tracks the variables inside Keras variables.
        self.weights = [weight.value for weight in run.model.weights]

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="images")])
    def serve(self, images: Any) -> dict[str, Any]:
        """Predicts texts for encoded images; see `trainer.export.saved_model.export_run`."""
        pixels, problems = read_images(images, Resizer.from_table_config(self._table_config))
        features, fits = round_as_stored(self._extract(pixels), self._table_config.dtype)
        problems = tf.where(fits | (problems > 0), problems, len(PROBLEMS))
        texts, numbers = self._predict(features)
        is_usable = tf.equal(problems, 0)

        def mask(values: Any) -> Any:
            usable = tf.reshape(is_usable, (-1, *[1] * (values.shape.rank - 1)))
            return tf.where(usable, values, np.float32("nan"))

        return {
            self._output_name: tf.where(is_usable, texts, ""),
            **{name: mask(values) for name, values in numbers.items()},
            "errors": tf.gather(tf.constant((*PROBLEMS, _OVERFLOW)), problems),
        }


def round_as_stored(features: Any, dtype: StorageDtype) -> tuple[Any, Any]:
    """Rounds features [N, …, channels] exactly as a feature table of this dtype does (`features.store.storage_dtypes`).

    The only exceptions are int8 features of a location where all magnitudes are less than 3 × 10⁻³⁶, because TensorFlow
    computes with 0 instead of subnormal numbers.

    Returns:
        The features, 0 for images that a table rejects, and whether a table accepts each image, bool [N].
    """
    stored = checked = tf.cast(features, tf.float32 if dtype == "int8" else dtype)
    if dtype == "int8":
        # In float64, because TensorFlow multiplies by the reciprocal of a constant, which is not exact in float32.
        peak = tf.cast(tf.reduce_max(tf.abs(features), axis=-1, keepdims=True), tf.float64)
        scale = tf.cast(peak / 127, tf.float32)
        stored = tf.round(features / tf.where(scale > 0, scale, 1.0)) * scale
    if not checked.dtype.is_floating:
        return stored, tf.ones(tf.shape(stored)[:1], tf.bool)
    fits = tf.reduce_all(tf.math.is_finite(checked), axis=range(1, features.shape.rank), keepdims=True)
    return tf.where(fits, stored, tf.zeros_like(stored)), tf.reshape(fits, (-1,))


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

    def predict(features: Any) -> tuple[Any, dict[str, Any]]:
        beams, scores, _ = decoder.decode(features)
        tokens = beams[:, 0]
        lengths = tf.reduce_sum(tf.cast(tf.not_equal(tokens, PAD), tf.int64), axis=1)
        words = tf.RaggedTensor.from_tensor(vocabulary.lookup(tf.cast(tokens, tf.int64)), lengths=lengths)
        return tf.strings.reduce_join(words, axis=-1, separator=" "), {"scores": scores[:, 0]}

    return GraphRun(run, "captions", predict, vocabulary)


def build_recognizer_graph(run: RecognizerRun) -> GraphRun:
    """Builds the graph of a recognizer, with greedy decoding."""
    head, charset = run.metadata.config.head, run.metadata.config.characters
    characters = ("", *charset.characters)
    # Class 0 has no character; an unassigned character has no bidirectional class.
    classes = tf.constant(["", *(unicodedata.bidirectional(one) or "ON" for one in charset.characters)])

    def predict(pixels: Any) -> tuple[Any, dict[str, Any]]:
        logits = run.model(pixels, training=False)[head] / run.temperature
        ids, scores = decode_greedily(head, logits)
        confidence = greedy_confidence(head, logits, ids)
        if any(map(is_right_to_left, charset.characters)):
            order = find_logical_order(tf.gather(classes, ids))
            ids, confidence = (tf.gather(values, order, batch_dims=1) for values in (ids, confidence))
        longest = tf.reduce_max(tf.reduce_sum(tf.cast(tf.not_equal(ids, BLANK), tf.int32), axis=1))
        texts = tf.strings.reduce_join(tf.gather(tf.constant(characters), ids), axis=1)
        numbers = {"confidence": tf.minimum(tf.exp(scores), 1.0), "character_confidence": confidence[:, :longest]}
        return texts, {"scores": scores, **numbers}

    return GraphRun(run, "labels", predict)


def find_logical_order(classes: Any) -> Any:
    """Returns the positions of the characters in logical order, int32 [N, L], as `visual_order.logical_positions`.

    The argument is string [N, L], the bidirectional classes of the characters from left to right; padding, which
    follows them, is "" and keeps its position.
    """
    positions = tf.range(tf.shape(classes)[1])
    lengths = tf.reduce_sum(tf.cast(classes != "", tf.int32), axis=1, keepdims=True)
    backward = tf.where(positions < lengths, lengths - 1 - positions, positions)
    is_forward = tf.gather(_is_any(classes, LEFT_TO_RIGHT) | _find_joining(classes), backward, batch_dims=1)
    is_same_run = _compare_runs(is_forward)
    first = tf.reduce_min(tf.where(is_same_run, positions, tf.shape(positions)[0]), axis=2)
    last = tf.reduce_max(tf.where(is_same_run, positions, -1), axis=2)
    order = tf.gather(backward, tf.where(is_forward, first + last - positions, positions), batch_dims=1)
    return tf.where(tf.reduce_any(_is_any(classes, RIGHT_TO_LEFT), axis=1, keepdims=True), order, positions)


def _find_joining(classes: Any) -> Any:
    """Returns which characters join the words beside them, bool [N, L]."""
    is_word = _is_any(classes, LEFT_TO_RIGHT)
    in_word = _compare_runs(is_word) & is_word[:, :, None]
    has_letter, has_european, has_arabic_indic = (
        tf.reduce_any(in_word & (classes == one)[:, None, :], axis=2) for one in LEFT_TO_RIGHT
    )
    is_number, after_arabic = is_word & ~has_letter, _follows_arabic(classes)
    kinds = {
        "L": has_letter,
        "EN": is_number & ~has_arabic_indic & ~after_arabic,
        "AN": is_number & (~has_european | after_arabic),
    }
    between = {
        kind: tf.pad(found[:, :-1], [[0, 0], [1, 0]]) & tf.pad(found[:, 1:], [[0, 0], [0, 1]])
        for kind, found in kinds.items()
    }
    return (
        (between["L"] & _is_any(classes, NEUTRAL))
        | ((between["EN"] | between["AN"]) & (classes == "CS"))
        | (between["EN"] & (classes == "ES"))
    )


def _follows_arabic(classes: Any) -> Any:
    """Returns for which characters, from left to right, the letter before them in logical order is Arabic, bool [N, L].

    It is the next letter to the right.
    """
    positions = tf.range(tf.shape(classes)[1])
    is_candidate = _is_any(classes, STRONG)[:, None, :] & (positions > positions[:, None])
    arabic, nearest = classes == "AL", tf.argmax(is_candidate, axis=2)  # 0 without a letter
    return tf.gather(arabic, nearest, batch_dims=1) & tf.reduce_any(is_candidate, axis=2)


def _is_any(classes: Any, names: Sequence[str]) -> Any:
    return tf.reduce_any(classes[..., None] == tf.constant(names), axis=-1)


def _compare_runs(flags: Any) -> Any:
    """Returns whether two positions are in one run of equal flags, bool [N, L, L], for bool [N, L]."""
    changes = tf.cast(flags[:, 1:] != flags[:, :-1], tf.int32)
    runs = tf.pad(tf.cumsum(changes, axis=1), [[0, 0], [1, 0]])
    return runs[:, :, None] == runs[:, None, :]
