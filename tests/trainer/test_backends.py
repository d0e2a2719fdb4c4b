"""Tests every captioner on the other Keras backends: equal logits and tokens as on TensorFlow, and a training step."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.models.model_specs import MODELS

ROOT = Path(__file__).parents[2]
VOCABULARY, LOCATIONS, CHANNELS, WORDS = 17, 4, 6, 5

SCRIPT = """
import json, sys
import keras, numpy as np
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.models.losses import CrossEntropy, MaskedAccuracy, MaskedCrossEntropy
from trainer.models.model_specs import MODELS

given = np.load("given.npz")
results = {}
for name, sizes in json.loads(sys.argv[1]).items():
    spec = MODELS[name]
    features = given["spatial" if spec.spatial else "pooled"]
    model = spec.build(spec.config(**sizes), int(given["vocabulary"]), features.shape[1:])
    model.load_weights(f"{name}.weights.h5")
    inputs = {"features": features, **{part: given[part] for part in ("tokens", "image", "targets")}}
    results[f"{name}/logits"] = keras.ops.convert_to_numpy(model(inputs))
    decode = make_decoder(model, GenerationConfig(max_new_tokens=given["tokens"].shape[1]))
    results[f"{name}/words"] = decode(features).tokens
    model.compile(keras.optimizers.SGD(0.1), MaskedCrossEntropy(), metrics=[CrossEntropy(), MaskedAccuracy()])
    before = MaskedCrossEntropy()(given["targets"], model(inputs))
    figures = model.train_on_batch(inputs, given["targets"], return_dict=True)
    after = MaskedCrossEntropy()(given["targets"], model(inputs))
    results[f"{name}/losses"] = np.array([float(loss) for loss in (before, after, figures["loss"])])
np.savez("results.npz", backend=keras.backend.backend(), **results)
"""


@pytest.fixture(scope="module")
def given(tiny_sizes, tmp_path_factory):
    """Inputs, and every model with its weights, in a directory."""
    directory = tmp_path_factory.mktemp("backends")
    rng = np.random.default_rng(0)
    tokens = rng.integers(4, VOCABULARY, (5, WORDS + 1)).astype(np.int32)
    values = {
        "pooled": rng.normal(size=(3, CHANNELS)).astype(np.float32),
        "spatial": rng.normal(size=(3, LOCATIONS, CHANNELS)).astype(np.float32),
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "image": np.array([0, 0, 2, 1, 1], np.int32),
    }
    np.savez(directory / "given.npz", vocabulary=VOCABULARY, **values)
    models = {}
    for name, spec in MODELS.items():
        keras.utils.set_random_seed(5)
        features = values["spatial" if spec.spatial else "pooled"]
        models[name] = spec.build(spec.config(**tiny_sizes[name]), VOCABULARY, features.shape[1:])
        models[name].save_weights(directory / f"{name}.weights.h5")
    return directory, values, models


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_every_model_trains_and_decodes_as_on_tensorflow(backend, given, tiny_sizes):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    directory, values, models = given
    # Compiling is nearly all of the time that this takes, and optimizing is half of that.
    jax = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment = {**os.environ, **jax, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    sizes = json.dumps({name: tiny_sizes[name] for name in MODELS})
    subprocess.run([sys.executable, "-c", SCRIPT, sizes], cwd=directory, env=environment, check=True)
    results = np.load(directory / "results.npz")
    assert results["backend"] == backend
    for name, model in models.items():
        features = values["spatial" if MODELS[name].spatial else "pooled"]
        logits = model({"features": features, "tokens": values["tokens"], "image": values["image"]})
        np.testing.assert_allclose(results[f"{name}/logits"], logits, atol=1e-4, err_msg=name)
        words = make_decoder(model, GenerationConfig(max_new_tokens=WORDS))(features).tokens
        np.testing.assert_array_equal(results[f"{name}/words"], words, err_msg=name)
        before, after, in_training = results[f"{name}/losses"]
        assert after < before, name
        assert np.isfinite(in_training), name
