"""`capt export`: a run as a SavedModel that takes encoded images and gives captions, and needs nothing but TensorFlow.

images (JPEG or PNG bytes) → pixels → network → storage dtype and back → decoder → words → captions
"""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from features.files import aside_of
from features.fitting import Fitting
from features.networks import INPUT, OUTPUT, load_network
from features.random_weights import noise_images
from schemas.errors import UsageError
from schemas.recipes import PAD, FeatureRecipe
from trainer.beam import BeamDecoder
from trainer.decoding import Decoding
from trainer.directory import NETWORK, VOCABULARY
from trainer.graph_images import PROBLEMS, read_images
from trainer.runs import Run, load_run

_COMPARED_IMAGES = 8


def export_run(run: str | Path | Run, out: str | Path, **decoding: Any) -> dict[str, Any]:
    """Write a run as a SavedModel.

    Its signature `serving_default` takes `images`, string [N], JPEG or PNG each, and gives `captions` string [N],
    `scores` float32 [N] (natural logarithm of each caption's probability) and `errors` string [N], empty where an image
    was read. The vocabulary is an asset.

    Args:
        run: str, Path or Run. A run directory, or an open run.
        out: str or Path. Directory to make.
        **decoding: as `Run.decoding` takes it, without a temperature.

    Returns:
        dict: `out`, `bytes`, `vocabulary` (ids), and `precision_difference`: how far the network's features in float32,
        as the graph computes them, are from those of the run's precision, relative to their norm (0 where that is
        float32).

    Raises:
        UsageError: the directory exists, decoding draws, or the backend is not TensorFlow.
    """
    opened = run if isinstance(run, Run) else load_run(run)
    chosen = opened.decoding(**decoding)
    target = Path(out).absolute()
    _check(target, chosen)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(target)
    try:
        captioner = GraphCaptioner(opened, chosen)
        tf.saved_model.save(captioner, str(aside), signatures={"serving_default": captioner.caption})
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {
        "out": str(target),
        "bytes": sum(path.stat().st_size for path in target.rglob("*") if path.is_file()),
        "vocabulary": len(opened.vocabulary),
        "precision_difference": _precision_difference(opened),
    }


def _check(target: Path, decoding: Decoding) -> None:
    if keras.backend.backend() != "tensorflow":
        raise UsageError("a SavedModel is made on TensorFlow", mend="unset KERAS_BACKEND; any run can be exported")
    if decoding.temperature is not None:
        raise UsageError("an exported captioner does not draw", where="--temperature", mend="leave it out")
    if target.exists():
        raise UsageError("it exists", where=str(target), mend="name a new directory")


class GraphCaptioner(tf.Module):
    """A run's whole way from encoded images to captions, as one graph.

    Args:
        run: Run. Whose network, model and vocabulary.
        decoding: Decoding. Without a temperature.
    """

    def __init__(self, run: Run, decoding: Decoding) -> None:
        super().__init__()
        self._recipe = run.record.features.recipe
        self._network = _pruned((run.path / NETWORK).read_bytes())
        self._decoder = BeamDecoder(run.model, decoding)
        # What Keras wraps, a SavedModel tracks.
        self.weights = [weight.value for weight in run.model.weights]
        self.words = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(run.path / VOCABULARY),
                key_dtype=tf.int64,
                key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                value_dtype=tf.string,
                value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            default_value="",
        )

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="images")])
    def caption(self, images: Any) -> dict[str, Any]:
        """Captions of a batch of encoded images; see `export_run`."""
        pixels, problems = read_images(images, Fitting.of(self._recipe))
        features = as_stored(self._network(pixels), self._recipe)
        words, scores, _ = self._decoder.decode(features)
        is_fine = tf.equal(problems, 0)
        return {
            "captions": tf.where(is_fine, self._text(words[:, 0]), ""),
            "scores": tf.where(is_fine, scores[:, 0], np.float32("nan")),
            "errors": tf.gather(tf.constant(PROBLEMS), problems),
        }

    def _text(self, ids: Any) -> Any:
        words = tf.RaggedTensor.from_tensor(self.words.lookup(tf.cast(ids, tf.int64)), lengths=_lengths(ids))
        return tf.strings.reduce_join(words, axis=-1, separator=" ")


def as_stored(features: Any, recipe: FeatureRecipe) -> Any:
    """Features as a table gives them back: rounded to its storage dtype, as `features.quantize` does.

    Args:
        features: float32 [N, …, channels].
        recipe: FeatureRecipe. Names the dtype.
    """
    if recipe.dtype != "int8":
        return tf.cast(features, recipe.dtype)
    scale = tf.reduce_max(tf.abs(features), axis=-1, keepdims=True) / 127
    return tf.round(features / tf.where(scale > 0, scale, 1.0)) * scale


def _lengths(ids: Any) -> Any:
    return tf.reduce_sum(tf.cast(tf.not_equal(ids, PAD), tf.int64), axis=1)


def _pruned(graph: bytes) -> Any:
    """A frozen network as a function of pixels."""
    definition = tf.compat.v1.GraphDef.FromString(graph)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    return wrapped.prune(f"{INPUT}:0", f"{OUTPUT}:0")


def _precision_difference(run: Run) -> float:
    recipe = run.record.features.recipe
    if recipe.precision == "float32":
        return 0.0
    fitting = Fitting.of(recipe)
    pixels = noise_images(_COMPARED_IMAGES, fitting.height, fitting.width, 0).astype(fitting.dtype)
    exact = load_network(run.path / NETWORK, "float32").predict(pixels)
    own = load_network(run.path / NETWORK, recipe.precision).predict(pixels)
    return float(np.linalg.norm(own - exact) / np.linalg.norm(exact))
