"""The extractor `scene_network` ships with capt, is checked before it is loaded, and recognizes scenes."""

import importlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import capt
from features.extractors import scene_network
from features.extractors.factory import choose_input_preprocessing, open_extractor
from features.io.atomic_files import hash_file
from features.synthetic.scenes.generator import make_scene
from features.synthetic.scenes.renderer import draw_scene
from schemas.errors import CorruptFileError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

ROOT = Path(__file__).parents[3]
SEED = 4711


def open_network(**options: object) -> scene_network.SceneNetworkExtractor:
    extractor = open_extractor(ExtractorOptions(extractor="scene_network", **options))
    assert isinstance(extractor, scene_network.SceneNetworkExtractor)
    return extractor


def describe_table(**options: object) -> FeatureTableConfig:
    config = open_network(**options).resolve_config()
    return FeatureTableConfig(
        **{name: value for name, value in vars(config).items() if value is not None}, pooling="none"
    )


def test_the_network_is_small_and_its_recipe_names_its_digest_and_accuracy() -> None:
    recipe = scene_network.read_recipe()
    assert hash_file(scene_network.NETWORK_FILE) == recipe["sha256"]
    assert scene_network.NETWORK_FILE.stat().st_size == recipe["bytes"] < 2_000_000
    assert recipe["objects"] > 0.98
    assert (ROOT / recipe["command"].split()[1]).is_file()


def test_a_table_of_the_network_has_its_name_digest_and_exact_arithmetic() -> None:
    config = open_network().resolve_config()
    assert (config.extractor, config.weights) == ("scene_network", f"sha256:{scene_network.read_recipe()['sha256']}")
    assert (config.layer, config.height, config.width, config.precision) == ("locations", 128, 128, "float32")


def test_objects_of_scenes_of_another_seed_are_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    program = importlib.import_module("scene_network")
    scenes = [make_scene(SEED, number) for number in range(1, 41)]
    images = [Image.open(BytesIO(draw_scene(scene, SEED))).resize((128, 128)) for scene in scenes]
    table_config = describe_table()
    function = open_network().build_function(table_config)
    assert function.shape == (64, 34)
    locations = np.asarray(function(np.stack([np.asarray(image) for image in images])))
    accuracy = program.compute_accuracy([scene.objects for scene in scenes], locations)
    assert accuracy["objects"] >= 0.95
    assert choose_input_preprocessing(table_config)(images[0]) is images[0]


def test_models_of_pooled_features_read_its_layer_scene() -> None:
    assert open_network(layer="scene").build_function(describe_table(layer="scene")).shape == (129,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "random:1"}, "--weights: scene_network has its own weights. Omit the option."),
        ({"preprocess": "unit"}, "--preprocess: scene_network has its own preprocessing. Omit the option."),
        ({"precision": "bfloat16"}, "--precision: scene_network compares coordinates in float32. Omit the option."),
    ],
)
def test_an_option_that_the_network_fixes_is_rejected(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_network(**options)
    assert str(raised.value) == message


def test_another_input_size_is_rejected() -> None:
    with pytest.raises(UsageError, match="--height: the model requires 128, not 100"):
        open_network(height=100).resolve_config()


def test_a_changed_file_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "scene_network.keras"
    changed.write_bytes(scene_network.NETWORK_FILE.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(scene_network, "NETWORK_FILE", changed)
    with pytest.raises(CorruptFileError, match="differs from the SHA-256 in its recipe"):
        open_network()


def test_features_of_scenes_are_prepared_without_options(tmp_path: Path) -> None:
    capt.synth_scenes(out=str(tmp_path / "scenes"), num_images=5)
    images = [str(tmp_path / "scenes" / "images")]
    summary = capt.prepare_features(
        store=str(tmp_path / "store"), dataset_type="folder", images=images, extractor="scene_network"
    )
    assert summary["ok"] == 5
    assert capt.open_store(tmp_path / "store").feature_table(summary["fingerprint"]).shape == (64, 34)
