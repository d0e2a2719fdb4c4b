import contextlib
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import capt
from features.extractors.factory import open_extractor
from features.store import open_store
from schemas.errors import CorruptFileError, StoreError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig
from tests.trainer.killing import kill_after, start
from trainer.config import CaptionerTraining, parse_options
from trainer.data.table_selection import select_tables
from trainer.models.backbone import BackboneFeatures, load_backbone, open_backbone
from trainer.models.model_specs import MODELS, PixelInput, model_spec
from trainer.runs.metadata import read_metadata
from trainer.runs.run import load_run

SIDE = 16
SIZES = {"units": 32, "embedding_dim": 16, "attention_dim": 16, "projection_dim": 16, "output_dim": 24, "dropout": 0.2}
QUICK = {**SIZES, "batch_size": 16, "learning_rate": 0.01, "num_sample_captions": 1, "extractor_preprocess": "tf"}
CHANGES = {"augment_translation": 0.1, "augment_zoom": 0.1, "augment_color_jitter": 0.2}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of random weights, in a file: 4×4 places of 6 channels."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((SIDE, SIDE, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="last"),
            layers.Flatten(name="flat"),
        ]
    )
    path = tmp_path_factory.mktemp("network") / "small.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def pixels(store, shown, squares, tmp_path_factory):
    """A store of features and of pixels."""
    root = tmp_path_factory.mktemp("pixels") / "store"
    shutil.copytree(store.path, root)
    copy = open_store(root)
    squares.add_pixels(copy, shown, SIDE)
    return copy


@pytest.fixture(scope="module")
def table_config(pixels):
    return select_tables(pixels, PixelInput()).features.table_config


def options(network, **changes):
    return {**QUICK, "extractor": f"custom:{network}", "extractor_layer": "last", **changes}


def config(network, **changes):
    training, _ = parse_options(model_spec("soft_attention").config, options(network, **changes))
    return training


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights_of(network):
    return {f"{layer.name}/{weight.name}": np.array(weight) for layer in network.layers for weight in layer.weights}


def kept(model):
    return weights_of(model.feature_normalization.network)


def published(network):
    return weights_of(keras.saving.load_model(network))


@pytest.fixture(scope="module")
def frozen(pixels, network, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "frozen"
    return run, capt.train_captioner(store=pixels.path, run_dir=run, seed=4, epochs=3, hyperparameters=options(network))


TUNING = {"seed": 4, "epochs": 2, "save_steps": 2}


@pytest.fixture(scope="module")
def tuned(pixels, network, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "tuned"
    capt.train_captioner(
        store=pixels.path,
        run_dir=run,
        **TUNING,
        hyperparameters=options(network, extractor_lr_multiplier=0.5, **CHANGES),
    )
    return run


def test_a_captioner_learns_from_pixels_with_a_frozen_extractor(frozen, network):
    run, _ = frozen
    rows = lines_of(run)
    assert rows[-1]["val_loss"] < 0.7 * rows[0]["val_loss"]
    found = kept(load_run(run).model)
    assert found.keys() == published(network).keys()
    for name, value in published(network).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_fine_tuned_extractor_keeps_its_batch_statistics(tuned, network):
    rows = lines_of(tuned)
    assert rows[-1]["val_loss"] < 0.8 * rows[0]["val_loss"]
    found = kept(load_run(tuned).model)
    moved = {name for name, value in published(network).items() if not np.array_equal(found[name], value)}
    assert moved == {"first/kernel", "norm/gamma", "norm/beta", "last/kernel", "last/bias"}


@pytest.mark.slow
def test_fine_tuning_improves_an_uninformative_extractor(pixels, network, tmp_path):
    blind = keras.saving.load_model(network)
    blind.get_layer("first").kernel.assign(np.zeros((3, 3, 3, 8)))
    blind.get_layer("norm").beta.assign(np.ones(8))
    blind.save(tmp_path / "blind.keras")
    least = {}
    for share in (0.0, 1.0):
        given = options(tmp_path / "blind.keras", extractor_lr_multiplier=share)
        capt.train_captioner(store=pixels.path, run_dir=tmp_path / f"{share}", seed=4, epochs=20, hyperparameters=given)
        least[share] = min(row["val_loss"] for row in lines_of(tmp_path / f"{share}"))
    assert least[1.0] < 0.8 * least[0.0], least


def test_normalization_is_measured_on_the_extractors_features(frozen, pixels, network, table_config):
    scale = load_run(frozen[0]).model.feature_normalization
    function = open_backbone(config(network), model_spec("soft_attention"), table_config).function
    tables = select_tables(pixels, PixelInput())
    keys = np.concatenate(list(tables.features.key_blocks()))
    features = np.array(function(tables.features.read(tables.features.lookup(keys)))).reshape(-1, 6)
    # The train split has three quarters of the pictures, and all of their kinds.
    np.testing.assert_allclose(scale.mean, features.mean(axis=0), rtol=0.1, atol=0.01)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(tuned, pixels, network, tmp_path):
    run, given = tmp_path / "run", options(network, extractor_lr_multiplier=0.5, **CHANGES)
    kill_after(start(pixels, run, **TUNING, hyperparameters=given), run, 1, 2)
    moved = shutil.copy(network, tmp_path / "moved.keras")
    again = {**given, "extractor": f"custom:{moved}"}
    assert capt.train_captioner(store=pixels.path, run_dir=run, **TUNING, hyperparameters=again)["resumed_at"]
    for got, expected in zip(lines_of(run), lines_of(tuned), strict=True):
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert got["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)
    for name, value in kept(load_run(tuned).model).items():
        np.testing.assert_allclose(kept(load_run(run).model)[name], value, rtol=1e-5, atol=1e-6)


def test_another_extractor_is_another_run(frozen, pixels, network, tmp_path):
    other = tmp_path / "other.keras"
    model = keras.saving.load_model(network)
    model.layers[0].kernel.assign(model.layers[0].kernel * 2)
    model.save(other)
    with pytest.raises(StoreError, match=r"extractor\.table_config\.weights: expected sha256:"):
        capt.train_captioner(store=pixels.path, run_dir=frozen[0], seed=4, epochs=3, hyperparameters=options(other))


@contextlib.contextmanager
def away(*paths):
    """Within the block, the paths are not there."""
    for path in paths:
        path.rename(f"{path}.away")
    try:
        yield
    finally:
        for path in paths:
            path.with_name(f"{path.name}.away").rename(path)


def test_a_run_needs_neither_its_store_nor_its_extractor_file(tuned, pixels, network, shown, tmp_path):
    images = [picture.data for picture in shown[:6]]
    table = select_tables(pixels, PixelInput()).features
    keys = np.frombuffer(b"".join(picture.key for picture in shown[:6]), np.uint8).reshape(6, -1)
    stored = table.read(table.lookup(keys))
    with away(pixels.path, network):
        run = load_run(tuned)
        made = list(run.caption_many(images))
        capt.export(run=run.path, out=tmp_path / "served")
    for one, expected in zip(made, run.caption_features(stored), strict=True):
        assert (one.text, one.score) == (expected.text, pytest.approx(expected.score, abs=1e-5))
        assert one.attention.shape == (len(one.words), 16)
    assert len({one.score for one in made}) == 6
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"](images=tf.constant(images))
    assert [text.decode() for text in served["captions"].numpy()] == [one.text for one in made]
    np.testing.assert_allclose(served["scores"], [one.score for one in made], atol=1e-4)


@pytest.mark.slow
def test_a_run_that_was_trained_on_jax_captions_on_tensorflow(pixels, network, shown, tmp_path):
    given = options(network, extractor_lr_multiplier=0.5, precision="mixed_bfloat16", **CHANGES)
    arguments = json.dumps({**TUNING, "hyperparameters": given})
    program = "import json, sys, capt; store, run, options = sys.argv[1:]; "
    program += "capt.train_captioner(store=store, run_dir=run, **json.loads(options))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", program, str(pixels.path), str(tmp_path / "run"), arguments]
    subprocess.run(command, env=environment, check=True)
    rows = lines_of(tmp_path / "run")
    assert rows[-1]["val_loss"] < 0.8 * rows[0]["val_loss"]
    assert not np.array_equal(kept(load_run(tmp_path / "run").model)["last/kernel"], published(network)["last/kernel"])
    assert load_run(tmp_path / "run").caption(shown[0].data).words


def test_missing_and_corrupt_layers_are_errors(frozen, tmp_path):
    table_config = read_metadata(frozen[0]).extractor.table_config
    with pytest.raises(CorruptFileError, match=r"extractor\.json: the extractor's layers are missing"):
        load_backbone(tmp_path / "extractor.json", table_config, trainable_extractor=False)
    (tmp_path / "extractor.json").write_text("{}")
    with pytest.raises(CorruptFileError, match=r"extractor\.json: the extractor's layers are corrupt"):
        load_backbone(tmp_path / "extractor.json", table_config, trainable_extractor=False)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_reads_pixels(name, network, table_config, tiny_sizes):
    spec = MODELS[name]
    function = open_backbone(config(network), spec, table_config).function
    model = spec.build(
        spec.config(**tiny_sizes[name]), 20, function.shape, BackboneFeatures(function, trainable_extractor=True)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)
    tokens = np.array([[2, 5, 6], [2, 7, 8], [2, 9, 4]], np.int32)
    whole = np.array(model({"features": pixels, "tokens": tokens, "image": np.array([0, 1, 2])}))
    logits, _, _ = model.step(tokens[:, 0], model.init_state(pixels))
    np.testing.assert_allclose(logits, whole[:, 0], atol=1e-5)
    assert any("kernel" in weight.path for weight in model.feature_normalization.network.trainable_variables)


def test_with_mixed_precision_the_extractor_computes_in_it(network, table_config):
    spec = model_spec("soft_attention")
    plain = open_backbone(config(network), spec, table_config).function
    shown = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)
    expected = np.array(plain(shown))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = BackboneFeatures(plain, trainable_extractor=True)
    finally:
        keras.config.set_dtype_policy("float32")
    layer.build((None, 16, 6))
    made = layer(shown)
    assert made.dtype == "bfloat16"
    assert {str(weight.dtype) for weight in layer.weights} == {"float32"}
    np.testing.assert_allclose(tf.cast(made, "float32"), expected, atol=0.03)
    assert np.abs(tf.cast(made, "float32") - expected).max() > 1e-5


def test_features_in_the_model_equal_those_of_the_table(pixels, table_config):
    training = CaptionerTraining(
        extractor="mobilenet",
        extractor_weights="random:1",
        extractor_layer="conv_pw_1_relu",
        extractor_lr_multiplier=0.1,
    )
    larger = table_config.model_copy(update={"height": 32, "width": 32})
    opened = open_backbone(training, model_spec("nic"), larger)
    assert opened.table_config.weights == "random:1@1"
    asked = ExtractorOptions(
        extractor="mobilenet",
        weights="random:1",
        layer="conv_pw_1_relu",
        pooling="avg",
        height=32,
        width=32,
        storage_dtype="float32",
    )
    choice = open_extractor(asked).resolve_config()
    table = FeatureTableConfig(**{**vars(choice), "precision": "float32"}, pooling="avg")
    assert opened.table_config == table
    shown = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    made = open_extractor(asked).build_function(table)(shown)
    np.testing.assert_allclose(opened.function(shown), made, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"extractor": "inception"}, r"extractor: unknown extractor 'inception'\. .*inception_v3"),
        ({"extractor": "pixels"}, r"extractor: `pixels` stores pixels and has no features"),
        ({"extractor": "custom:no.keras"}, r"no\.keras: the file does not exist"),
        ({"extractor_layer": "lost"}, r"extractor_layer: small\.keras has no layer 'lost'"),
        (
            {"extractor_layer": "flat"},
            r"extractor_layer: soft_attention requires spatial features, but the output of flat is \[96\]",
        ),
        ({"extractor_weights": "imagenet"}, r"extractor_weights: a custom extractor has its own weights"),
    ],
)
def test_an_unsuitable_extractor_is_an_error_at_its_option(network, table_config, changes, complaint):
    with pytest.raises(UsageError, match=complaint):
        open_backbone(config(network, **changes), model_spec("soft_attention"), table_config)


def test_pixels_of_another_size_are_rejected_with_the_command(network, table_config):
    other = table_config.model_copy(update={"height": 32})
    with pytest.raises(UsageError, match=r"16, not 32; the table's pixels are 32×16\. .*--height N --width N"):
        open_backbone(config(network), model_spec("soft_attention"), other)


def test_pixels_require_an_extractor_and_features_none(pixels, network):
    assert select_tables(pixels, PixelInput()).features.shape == (SIDE, SIDE, 3)
    features = select_tables(pixels, model_spec("soft_attention")).features
    assert features.shape == (16, 19)
    with pytest.raises(UsageError, match=r"these features have shape \[16, 19\]\. .*--extractor pixels`"):
        select_tables(pixels, PixelInput(), features=features.fingerprint)
    taken = select_tables(pixels, PixelInput()).features.fingerprint
    with pytest.raises(UsageError, match=r"these are pixels \[16, 16, 3\].*set extractor in --config"):
        select_tables(pixels, model_spec("nic"), features=taken)


@pytest.mark.parametrize("name", ["extractor_layer", "extractor_lr_multiplier", "augment_translation"])
def test_options_of_pixels_require_an_extractor(name):
    value = "mixed9" if name == "extractor_layer" else 0.1
    with pytest.raises(UsageError, match=f"{name} requires a model that learns from pixels"):
        parse_options(model_spec("nic").config, {name: value})
