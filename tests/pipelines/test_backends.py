"""`prepare features` computes with a compiled model on JAX, PyTorch and GPUs; on JAX and PyTorch without TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capt
from features.extractors import frozen_graph
from features.extractors.keras_file import encode_model
from features.extractors.runtimes import RuntimeChoice
from features.runtime.numerics import detect_cpu
from features.store import FeatureTable
from features.store.extractor_record import ExtractorRecord
from pipelines import prepare_features as module
from pipelines.jobs import extraction_job, provenance
from pipelines.jobs.provenance import check_launch
from schemas.errors import CorruptFileError, StoreError, UsageError

ROOT = Path(__file__).parents[2]
SIDE = 32
COMPILED = f"cpu/{detect_cpu().chip}/tensorflow/float32"
OPTIONS: dict[str, Any] = {"dataset_type": "folder", "preprocess": "tf", "precision": "float32"}

# Makes TensorFlow look as if it were not installed.
SITE = """
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0].startswith("tensorflow") else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if one is importlib.machinery.PathFinder else one for one in sys.meta_path]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a small extractor."""
    path: Path = tmp_path_factory.mktemp("model") / "model.keras"
    keras.utils.set_random_seed(3)
    image = keras.Input((SIDE, SIDE, 3))
    maps = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(image)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization(beta_initializer="ones")(maps))
    keras.Model(image, keras.layers.SeparableConv2D(12, 3, padding="same", activation="relu")(maps)).save(path)
    return path


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `prepare features` compute as on a GPU, with TensorFlow's compiled model on the CPU."""
    monkeypatch.setattr(module, "choose_runtime", lambda *_, **__: RuntimeChoice("tensorflow", "auto"))


def prepare(store: Path, images: Path, model: Path, **options: Any) -> dict[str, Any]:
    extractor = f"custom:{model}"
    return capt.prepare_features(store=str(store), images=[str(images)], extractor=extractor, **OPTIONS, **options)  # type: ignore[no-any-return]


def open_table(store: Path) -> FeatureTable:
    (table,) = capt.open_store(store).feature_tables()
    return table


def read_all(table: FeatureTable) -> Any:
    keys = np.concatenate(list(table.key_blocks()))
    return table.read(table.lookup(keys[np.lexsort(keys.T[::-1])]))


def test_a_compiled_model_fills_a_table_that_is_verified_repaired_and_extended(
    tmp_path: Path, photos: Callable[..., Path], model: Path, compiled: None
) -> None:
    store = tmp_path / "store"
    assert prepare(store, photos(3), model, dry_run=True)["images_per_second"] > 0
    assert prepare(store, photos(3), model)["ok"] == 3
    table = open_table(store)
    facts = table.facts
    assert (facts.numerics, facts.network_format) == (COMPILED, "keras")
    assert table.extractor_path.suffix == ".keras"
    record = ExtractorRecord.parse((table.root / "network.json").read_bytes())
    assert record == ExtractorRecord(facts.network, "keras", table.shape)
    assert capt.store_verify(store=str(store))["damaged"] == []
    table.extractor_path.write_bytes(b"corrupt")
    with pytest.raises(CorruptFileError):
        capt.store_verify(store=str(store))
    assert prepare(store, photos(3), model)["cached"] == 3
    assert capt.store_verify(store=str(store))["damaged"] == []
    assert prepare(store, photos(5), model)["ok"] == 2
    assert open_table(store).rows == 5


def test_rows_of_frozen_graphs_and_compiled_models_are_mixed_only_on_request(
    tmp_path: Path, photos: Callable[..., Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    prepare(store, photos(2), model)
    monkeypatch.setattr(module, "choose_runtime", lambda *_, **__: RuntimeChoice("tensorflow", "auto"))
    with pytest.raises(StoreError, match="--allow-mixed-numerics"):
        prepare(store, photos(3), model)
    assert prepare(store, photos(3), model, allow_mixed_numerics=True)["ok"] == 1
    formats = [(manifest.facts.network_format, manifest.facts.numerics) for manifest in open_table(store).manifests]
    assert {one for one, _ in formats} == {"pb", "keras"}
    assert len({numerics for _, numerics in formats}) == 2
    assert capt.store_verify(store=str(store))["damaged"] == []
    networks = list(store.glob("networks/*"))
    assert len(networks) == 2
    for network in networks:  # Each is repaired, not only that of the last commit.
        network.unlink()
    assert prepare(store, photos(3), model)["cached"] == 3
    assert capt.store_verify(store=str(store))["damaged"] == []


@pytest.mark.parametrize("allow_mixed", [False, True])
def test_a_remote_job_of_another_runtime_is_refused_at_launch(
    tmp_path: Path, photos: Callable[..., Path], model: Path, allow_mixed: bool
) -> None:
    store = tmp_path / "store"
    prepare(store, photos(2), model)
    table, remote = open_table(store), ("--runner=DataflowRunner",)
    check_launch(table, table.table_config, RuntimeChoice(), remote, allow_mixed)
    for runtime in (RuntimeChoice("jax", "auto"), RuntimeChoice("jax", "cpu"), RuntimeChoice("tensorflow", "gpu")):
        check_launch(None, table.table_config, runtime, remote, allow_mixed)
        if allow_mixed:
            check_launch(table, table.table_config, runtime, remote, allow_mixed)
            continue
        with pytest.raises(StoreError, match="--allow-mixed-numerics") as caught:
            check_launch(table, table.table_config, runtime, remote, allow_mixed)
        assert table.facts.numerics in str(caught.value)
        assert f"compute with {runtime.backend}" in str(caught.value)


def test_a_remote_job_computes_units_of_another_runtime_again(
    tmp_path: Path, photos: Callable[..., Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units that were refused at the commit stay in the plan, which all backends share."""
    store, elsewhere = tmp_path / "store", "gpu/some chip/tensorflow/float32"
    prepare(store, photos(2), model)
    with monkeypatch.context() as then:
        then.setattr(frozen_graph, "detect_numerics_class", lambda precision: elsewhere)
        with pytest.raises(StoreError):
            prepare(store, photos(3), model)
    for one in (extraction_job, provenance):
        monkeypatch.setattr(one, "runs_locally", lambda options: False)
    assert prepare(store, photos(3), model)["ok"] == 1
    assert elsewhere not in {manifest.facts.numerics for manifest in open_table(store).manifests}


def test_the_frozen_graph_and_the_compiled_model_agree(
    tmp_path: Path, photos: Callable[..., Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "frozen", photos(5), model, storage_dtype="float32")
    monkeypatch.setattr(module, "choose_runtime", lambda *_, **__: RuntimeChoice("tensorflow", "auto"))
    prepare(tmp_path / "compiled", photos(5), model, storage_dtype="float32")
    frozen, compiled = (read_all(open_table(tmp_path / name)) for name in ("frozen", "compiled"))
    np.testing.assert_allclose(compiled, frozen, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"device": "gpu"}, {"backend": "jax"}])
def test_imported_features_have_no_runtime(
    tmp_path: Path, photos: Callable[..., Path], options: dict[str, str]
) -> None:
    with pytest.raises(UsageError) as caught:
        capt.prepare_features(
            store=str(tmp_path / "store"),
            dataset_type="folder",
            images=[str(photos(1))],
            from_arrays=[str(tmp_path)],
            **options,
        )
    assert caught.value.location == f"--{next(iter(options))}"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_needs_no_tensorflow_and_agrees_with_it(
    backend: str, tmp_path: Path, photos: Callable[..., Path], model: Path
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
    }

    def run(store: str, **options: str) -> dict[str, Any]:
        given = {"store": str(tmp_path / store), "images": str(images), **options}
        flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
        command = [sys.executable, "-m", "capt", "prepare", "features", *flags, "--json"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    images = photos(5)
    extractor = {**OPTIONS, "extractor": f"custom:{model}", "storage_dtype": "float32"}
    assert run("one", backend=backend, **extractor)["ok"] == 5
    table = open_table(tmp_path / "one")
    assert table.facts.numerics == f"cpu/{detect_cpu().chip}/{backend}/float32"
    assert "tensorflow" not in table.facts.toolchain
    assert backend in table.facts.toolchain
    # The bytes of the extractor are those that TensorFlow's process writes.
    assert table.extractor_path.read_bytes() == encode_model(_truncate(model))
    assert capt.store_verify(store=str(tmp_path / "one"))["damaged"] == []
    prepare(tmp_path / "frozen", images, model, storage_dtype="float32")
    frozen = open_table(tmp_path / "frozen")
    assert frozen.fingerprint == table.fingerprint
    np.testing.assert_allclose(read_all(table), read_all(frozen), rtol=1e-4, atol=1e-4)
    size = {"height": "8", "width": "8"}
    # Without TensorFlow, JAX is the default.
    chosen = {} if backend == "jax" else {"backend": backend}
    assert run("pixels", dataset_type="folder", extractor="pixels", **size, **chosen)["ok"] == 5
    pixels = open_table(tmp_path / "pixels")
    assert (pixels.facts.numerics, pixels.facts.network_format) == ("pixels", "keras")
    # A damaged index is repaired, and the store verified, without TensorFlow.
    shard = pixels.manifests[0].shards[0]
    (pixels.root / shard.index.path).write_bytes(b"corrupt")
    assert run("pixels", dataset_type="folder", extractor="pixels", **size, **chosen)["cached"] == 5
    command = [sys.executable, "-m", "capt", "store", "verify", str(tmp_path / "pixels"), "--json"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["damaged"] == []
    # Rows of another backend are the same, and are added to the table.
    capt.prepare_features(
        store=str(tmp_path / "pixels"),
        images=[str(photos(6))],
        dataset_type="folder",
        extractor="pixels",
        height=8,
        width=8,
    )
    assert open_table(tmp_path / "pixels").rows == 6


def _truncate(model: Path) -> Any:
    from features.extractors.factory import open_extractor
    from schemas.options.extractor import ExtractorOptions
    from schemas.table_config import FeatureTableConfig

    extractor = open_extractor(ExtractorOptions(extractor=f"custom:{model}", preprocess="tf"))
    table_config = FeatureTableConfig(**{**vars(extractor.resolve_config()), "precision": "float32"})
    return extractor.build_function(table_config).model  # type: ignore[attr-defined]
