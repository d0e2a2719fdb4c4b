"""Extracts features in common ways: the notebooks' loop and a plain Beam pipeline, both peers of capt.

Both are reimplementations with the usual costs:

- The loop decodes in tf.data, calls the Keras model eagerly on 16 images, and writes one float32 `.npy` per image.
- The pipeline uses RunInference's own batching and a TFRecord sink; pixels and features cross stages in memory.

Both resize bilinearly without antialiasing, as `tf.image.resize` does.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import apache_beam as beam
import keras
import numpy as np
import tensorflow as tf
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, PredictionResult, RunInference
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from numpy.typing import NDArray

SIDE = 299
_BATCH = 16


@lru_cache(maxsize=1)
def load_model(path: str) -> Any:
    """Loads the model up to its last spatial layer from a `.keras` file, once per process."""
    return keras.models.load_model(path)


def load_image(path: Any) -> tuple[Any, Any]:
    """Returns an image after the input preprocessing of InceptionV3, and its path."""
    image = tf.image.decode_jpeg(tf.io.read_file(path), channels=3)
    image = tf.image.resize(image, (SIDE, SIDE))
    return keras.applications.inception_v3.preprocess_input(image), path


# === The notebooks' loop ===


def notebook_loop(model: str, paths: Sequence[Path], out: Path) -> None:
    """Writes one `.npy` [64, 2048] per image to `out`."""
    network = load_model(model)
    names = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    for images, read in names.map(load_image, num_parallel_calls=tf.data.AUTOTUNE).batch(_BATCH):
        maps = network(images)
        features = tf.reshape(maps, (maps.shape[0], -1, maps.shape[3]))
        for one, path in zip(features, read, strict=True):
            np.save(out / Path(path.numpy().decode()).stem, one.numpy())


# === The plain Beam pipeline ===


class KerasHandler(ModelHandler):  # type: ignore[misc]
    """Runs a Keras model on a batch of images."""

    def __init__(self, model: str) -> None:
        self._model = model

    def load_model(self) -> Any:
        return load_model(self._model)

    def run_inference(
        self, batch: Sequence[NDArray[np.float32]], model: Any, inference_args: Any = None
    ) -> Iterable[PredictionResult]:
        features = model(np.stack(batch)).numpy()
        return [PredictionResult(image, one) for image, one in zip(batch, features, strict=True)]


def plain_beam(model: str, paths: Sequence[Path], out: Path) -> None:
    """Writes TFRecords with `path` and `features`, float32 [8, 8, 2048] as bytes, to `out`."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create([str(path) for path in paths])
            | beam.Map(_decoded)
            | RunInference(KeyedModelHandler(KerasHandler(model)))
            | beam.MapTuple(_example)
            | beam.io.WriteToTFRecord(str(out / "features"), file_name_suffix=".tfrecord")
        )


def _decoded(path: str) -> tuple[str, NDArray[np.float32]]:
    return path, load_image(path)[0].numpy()


def _example(path: str, result: PredictionResult) -> bytes:
    features = tf.train.Features(
        feature={
            "path": tf.train.Feature(bytes_list=tf.train.BytesList(value=[path.encode()])),
            "features": tf.train.Feature(bytes_list=tf.train.BytesList(value=[result.inference.tobytes()])),
        }
    )
    data: bytes = tf.train.Example(features=features).SerializeToString()
    return data


# === What they kept ===


def read_notebook(out: Path) -> dict[str, NDArray[np.float32]]:
    """Returns features [64, 2048] by the stem of the image path."""
    return {path.stem: np.load(path) for path in out.iterdir()}


def read_beam(out: Path) -> dict[str, NDArray[np.float32]]:
    """Returns features [64, 2048] by the stem of the image path."""
    kept = {}
    for record in tf.data.TFRecordDataset([str(path) for path in sorted(out.iterdir())]).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        values = np.frombuffer(feature["features"].bytes_list.value[0], np.float32)
        kept[Path(feature["path"].bytes_list.value[0].decode()).stem] = values.reshape(64, -1)
    return kept
