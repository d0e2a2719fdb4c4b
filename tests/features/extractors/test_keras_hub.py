"""An extractor of KerasHub is a preset in a directory, computes what KerasHub computes, and is loaded safely."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

import capt
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import FrozenGraph, freeze
from features.extractors.keras_hub import _hash_preset
from features.extractors.output_layers import build_in_thread
from features.extractors.rescaling import Rescaling
from schemas.errors import CaptError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

keras_hub = pytest.importorskip("keras_hub")

SIDE = 32
PATCHES = 16
TINY = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "image_shape": (SIDE, SIDE, 3), "patch_size": 8}
TEXT = {"vocabulary_size": 11, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 1, "num_heads": 2}
SCALE, OFFSET = [1 / 127.5, 1 / 120, 1 / 100], [-1.0, -0.9, -0.8]


def build_clip() -> Any:
    vision = keras_hub.models.CLIPVisionEncoder(**TINY, intermediate_dim=32, name="vision")
    text = keras_hub.models.CLIPTextEncoder(**TEXT, intermediate_dim=8)
    return keras_hub.models.CLIPBackbone(vision_encoder=vision, text_encoder=text, projection_dim=8)


def build_siglip() -> Any:
    vision = keras_hub.models.SigLIPVisionEncoder(**TINY, intermediate_dim=32, name="vision")
    text = keras_hub.models.SigLIPTextEncoder(**TEXT, intermediate_dim=8)
    return keras_hub.models.SigLIPBackbone(vision_encoder=vision, text_encoder=text)


def build_efficientnet_lite() -> Any:
    blocks = {"expansion_ratios": [1, 6], "kernel_sizes": [3, 3], "num_repeats": [1, 1], "strides": [1, 2]}
    filters = {"input_filters": [8, 8], "output_filters": [8, 8], "force_input_filters": [0, 0]}
    lite = {"squeeze_and_excite_ratios": [0, 0], "nores_option": [False, False], "block_types": ["v1", "v1"]}
    widths = {"width_coefficients": [1.0, 1.0], "depth_coefficients": [1.0, 1.0]}
    stacks = {f"stackwise_{name}": value for name, value in (blocks | filters | lite | widths).items()}
    return keras_hub.models.EfficientNetBackbone(**stacks, activation="relu6", width_coefficient=0.25)


# Backbone, image converter, patches and channels of its features, and the tokens before the patches.
FAMILIES: dict[str, tuple[Callable[[], Any], str, int, int, int]] = {
    "clip": (build_clip, "CLIP", PATCHES, 16, 1),
    "siglip": (build_siglip, "SigLIP", PATCHES, 16, 0),
    "dinov2": (
        lambda: keras_hub.models.DINOV2Backbone(
            **TINY, intermediate_dim=32, num_register_tokens=4, position_embedding_shape=(48, 48)
        ),
        "DINOV2", PATCHES, 16, 5,
    ),
    "dinov3": (
        lambda: keras_hub.models.DINOV3Backbone(**TINY, intermediate_dim=32, num_register_tokens=4),
        "DINOV3", PATCHES, 16, 5,
    ),
    "vit": (lambda: keras_hub.models.ViTBackbone(**TINY, mlp_dim=32), "ViT", PATCHES, 16, 1),
    "deit": (lambda: keras_hub.models.DeiTBackbone(**TINY, intermediate_dim=32), "DeiT", PATCHES, 16, 2),
    "efficientnet_lite": (build_efficientnet_lite, "EfficientNet", 64, 320, 0),
}  # fmt: skip
FAST = ("siglip",)
ALL = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the preset of a family with seeded random weights, once."""
    root = tmp_path_factory.mktemp("presets")

    def write(family: str) -> Path:
        directory = root / family
        if directory.is_dir():
            return directory
        build, name, *_ = FAMILIES[family]
        backbone = build_in_thread(build)
        generator = np.random.default_rng(0)
        for variable in backbone.variables:
            if "variance" not in variable.path:
                variable.assign(generator.normal(scale=0.3, size=variable.shape))
        backbone.save_to_preset(str(directory))
        converter = getattr(keras_hub.layers, f"{name}ImageConverter")
        converter(
            image_size=(SIDE, SIDE), scale=SCALE, offset=OFFSET, crop_to_aspect_ratio=family != "siglip"
        ).save_to_preset(str(directory))
        return directory

    return write


def open_preset(directory: Path | str, **options: Any) -> Any:
    return open_extractor(ExtractorOptions(extractor=f"keras_hub:{directory}", **options))


def compute(extractor: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Computes features with the frozen graph of an extractor. Their bits do not depend on the order of the images."""
    table_config = FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": "float32"})
    graph = freeze(extractor.build_function(table_config), *pixels.shape[1:3])
    loaded = FrozenGraph(graph, "float32")
    rows = loaded.predict(pixels)
    assert np.array_equal(loaded.predict(np.ascontiguousarray(pixels[::-1])), rows[::-1])
    return rows


def call_directly(directory: Path, pixels: NDArray[np.uint8], layer: str | None = None, **changes: Any) -> Any:
    """Computes the output of the vision encoder, or of one of its layers, with KerasHub alone."""
    backbone = keras_hub.models.Backbone.from_preset(str(directory), **changes)
    encoder = getattr(backbone, "vision_encoder", backbone)
    converter = keras_hub.layers.ImageConverter.from_preset(str(directory))
    converter.image_size = pixels.shape[1:3]
    model = keras.Model(encoder.inputs[0], encoder.get_layer(layer).output) if layer else encoder
    return np.asarray(model(converter(pixels), training=False))


def make_pixels(side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (8, side, side, 3), np.uint8)


@pytest.mark.parametrize("family", ALL)
def test_features_are_those_of_a_direct_call_of_keras_hub(presets: Callable[[str], Path], family: str) -> None:
    directory, pixels = presets(family), make_pixels()
    _, _, patches, channels, extra = FAMILIES[family]
    direct = call_directly(directory, pixels, "vision_post_layer_norm" if family == "siglip" else None)
    tokens = direct.reshape(8, -1, channels)
    rows = compute(open_preset(directory), pixels)
    assert rows.shape == (8, patches, channels)
    assert np.allclose(rows, tokens[:, extra:], rtol=1e-5, atol=1e-5)
    expected = tokens[:, 0] if extra else tokens.mean(axis=1)
    if family == "siglip":
        expected = call_directly(directory, pixels)
    assert np.allclose(compute(open_preset(directory, layer="pooled"), pixels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_record_contains_preprocessing_and_a_digest_of_the_files(
    tmp_path: Path, presets: Callable[[str], Path]
) -> None:
    directory = Path(shutil.copytree(presets("siglip"), tmp_path / "copy"))
    config = open_preset(directory).resolve_config()
    assert (config.extractor, config.layer, config.height, config.width) == ("keras_hub", "patches", SIDE, SIDE)
    assert config.fit == "stretch"
    assert Rescaling.parse(str(config.preprocess)) == Rescaling(tuple(SCALE), tuple(OFFSET))
    (directory / "metadata.json").write_text("{}")
    assert open_preset(directory).resolve_config() == config
    converter = json.loads((directory / "image_converter.json").read_text())
    converter["config"] |= {"offset": [0.0, 0.0, 0.0], "crop_to_aspect_ratio": True}
    (directory / "image_converter.json").write_text(json.dumps(converter))
    changed = open_preset(directory).resolve_config()
    assert changed.weights != config.weights
    assert (changed.fit, Rescaling.parse(str(changed.preprocess)).offset) == ("crop", (0.0, 0.0, 0.0))


@pytest.mark.slow
def test_dinov2_supports_other_sizes_and_siglip_does_not(presets: Callable[[str], Path]) -> None:
    pixels = make_pixels(48)
    rows = compute(open_preset(presets("dinov2"), height=48, width=48), pixels)
    direct = call_directly(presets("dinov2"), pixels, image_shape=(48, 48, 3))
    assert np.allclose(rows, direct[:, 5:], rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError) as caught:
        open_preset(presets("siglip"), height=48, width=48).resolve_config()
    assert caught.value.location == "--height, --width"


@pytest.mark.slow
def test_features_are_prepared_without_network(
    tmp_path: Path, presets: Callable[[str], Path], photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network is used"))
    store = tmp_path / "store"
    summary = capt.prepare_features(
        store=str(store), dataset_type="folder", images=[str(photos(3))], extractor=f"keras_hub:{presets('dinov2')}"
    )
    table = capt.open_store(store).feature_table(summary["fingerprint"])
    assert (summary["ok"], table.shape, table.table_config.fit) == (3, (PATCHES, 16), "crop")


@pytest.mark.slow
def test_builds_are_equal_and_the_stored_model_computes_the_same(
    presets: Callable[[str], Path], tmp_path: Path
) -> None:
    """The file for runtimes other than TensorFlow on a CPU."""
    from features.extractors.keras_file import encode_model
    from features.extractors.runtimes import load_extractor

    for family in ("siglip", "dinov2", "vit", "deit"):
        extractor = open_preset(presets(family))
        config = vars(extractor.resolve_config()) | {"precision": "float32", "dtype": "float32"}
        table_config = FeatureTableConfig(**config)
        again = open_preset(presets(family))
        graphs = {freeze(one.build_function(table_config), SIDE, SIDE) for one in (extractor, again)}
        assert len(graphs) == 1
        path = tmp_path / f"{family}.keras"
        path.write_bytes(encode_model(extractor.build_function(table_config).model))
        loaded = load_extractor(path, table_config, "cpu")
        rows = compute(extractor, make_pixels())
        assert np.allclose(loaded.predict(make_pixels()), rows, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["siglip", "vit"])
def test_a_run_stores_an_extractor_that_it_fine_tunes(
    presets: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    from trainer.models.backbone import load_backbone, open_backbone
    from trainer.models.configs import BackboneConfig
    from trainer.models.model_specs import model_spec

    pixels = FeatureTableConfig(
        extractor="pixels", weights="none", layer="output", height=SIDE, width=SIDE, precision="float32", dtype="uint8"
    )
    config = BackboneConfig(extractor=f"keras_hub:{presets(family)}")
    backbone = open_backbone(config, model_spec("soft_attention"), pixels)
    assert backbone.table_config.fit == pixels.fit
    path = tmp_path / "extractor.json"
    path.write_bytes(backbone.serialize())
    features = load_backbone(path, backbone.table_config, trainable_extractor=True)
    features.network.set_weights(backbone.function.model.get_weights())
    expected = np.asarray(backbone.function(make_pixels()))
    assert np.array_equal(np.asarray(features._function(make_pixels())), expected)


def change_config(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((directory / "config.json").read_text())
    change(config)
    (directory / "config.json").write_text(json.dumps(config))


def test_other_classes_and_models_are_rejected(tmp_path: Path, presets: Callable[[str], Path]) -> None:
    foreign = Path(shutil.copytree(presets("siglip"), tmp_path / "foreign"))
    stranger = {"module": "os", "class_name": "system", "config": "true", "registered_name": "system"}
    change_config(foreign, lambda config: config["config"].update(extra=[stranger]))
    transformers = Path(shutil.copytree(foreign, tmp_path / "transformers"))
    (transformers / "config.json").write_text('{"model_type": "dinov2"}')
    text = Path(shutil.copytree(foreign, tmp_path / "text"))
    keras_hub.models.SigLIPTextEncoder(**TEXT, intermediate_dim=8).save_to_preset(str(text))
    plain = Path(shutil.copytree(presets("siglip"), tmp_path / "plain"))
    (plain / "image_converter.json").unlink()
    for directory in (foreign, transformers, text, plain):
        with pytest.raises(UsageError) as caught:
            open_preset(directory).resolve_config()
        assert caught.value.location == str(directory)
    (foreign / "config.json").write_text("no JSON")
    with pytest.raises(CaptError):
        open_preset(foreign).resolve_config()


def test_names_without_a_preset_and_options_that_do_not_apply_are_rejected(
    tmp_path: Path, presets: Callable[[str], Path]
) -> None:
    with pytest.raises(UsageError, match="siglip_base_patch16_224"):
        open_preset("siglip_base_patch16_225").resolve_config()
    with pytest.raises(UsageError) as caught:
        open_preset(tmp_path / "none")
    assert caught.value.location == f"keras_hub:{tmp_path / 'none'}"
    for option, value in (("weights", "imagenet"), ("preprocess", "tf"), ("storage_dtype", "uint8")):
        with pytest.raises(UsageError) as caught:
            open_preset(presets("siglip"), **{option: value})
        assert caught.value.location == f"--{option.replace('_', '-')}"
    with pytest.raises(UsageError) as caught:
        open_preset(presets("siglip"), layer="vision_post_layer_nrm").resolve_config()
    assert (caught.value.location, "vision_post_layer_norm" in str(caught.value.hint)) == ("--layer", True)


def test_the_identity_is_that_of_the_weights_that_are_loaded(tmp_path: Path, presets: Callable[[str], Path]) -> None:
    preset = shutil.copytree(presets("siglip"), tmp_path / "preset")
    config = open_preset(preset).resolve_config()
    (preset / "model_old.weights.h5").write_bytes(b"of another version")
    assert open_preset(preset).resolve_config() == config

    # An index may name any file of the directory.
    weights = (preset / "model.weights.h5").rename(preset / "any.h5")
    index = preset / "model.weights.json"
    index.write_text(json.dumps({"weight_map": {"a": "any.h5"}}))
    first = _hash_preset(preset, "")
    weights.write_bytes(weights.read_bytes() + b"more")
    assert _hash_preset(preset, "") != first
    for outside in ("../any.h5", ".."):
        index.write_text(json.dumps({"weight_map": {"a": [outside]}}))
        with pytest.raises(CaptError, match="not a file of its directory"):
            open_preset(preset).resolve_config()
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(UsageError, match="no weights"):
        open_preset(preset).resolve_config()
    index.unlink()
    with pytest.raises(UsageError, match="no weights"):
        open_preset(preset).resolve_config()


def test_files_that_change_within_a_command_are_an_error(tmp_path: Path, presets: Callable[[str], Path]) -> None:
    preset = shutil.copytree(presets("siglip"), tmp_path / "preset")
    extractor = open_preset(preset)
    config = extractor.resolve_config()
    table_config = FeatureTableConfig(**{**vars(config), "precision": "float32"})
    extractor.build_function(table_config)
    (preset / "image_converter.json").write_text((preset / "image_converter.json").read_text() + "\n")
    with pytest.raises(CaptError, match="have changed"):
        open_preset(preset).build_function(table_config)


@pytest.mark.slow
def test_a_name_is_loaded_from_the_files_that_keras_hub_downloads(
    tmp_path: Path, presets: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, cache = presets("siglip"), tmp_path / "cache"
    cache.mkdir()

    def download(handle: str, path: str) -> str:
        return str(shutil.copy(directory / path, cache))

    monkeypatch.setattr("kagglehub.model_download", download)
    named = open_preset("siglip2_base_patch16_224").resolve_config()
    assert named == open_preset(directory).resolve_config()

    # A class of nobody is found before the first load.
    shutil.rmtree(cache)
    cache.mkdir()
    changed = shutil.copytree(directory, tmp_path / "changed")
    converter = json.loads((changed / "image_converter.json").read_bytes())
    (changed / "image_converter.json").write_text(json.dumps({**converter, "registered_name": "stranger>Evil"}))
    directory = changed
    with pytest.raises(UsageError, match=r"image_converter\.json"):
        open_preset("siglip2_base_patch16_224").resolve_config()

    def fail(handle: str, path: str) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr("kagglehub.model_download", fail)
    with pytest.raises(CaptError, match="no network"):
        open_preset("siglip2_base_patch16_224").resolve_config()


def test_without_keras_hub_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "keras_hub")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"capt\[keras_hub\]"):
        open_preset(tmp_path)
