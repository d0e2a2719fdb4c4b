"""A table in int8 has one quantized network, which every later job uses and no job replaces."""

import hashlib
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capt
from features.extractors.quantized_model import QuantizedNetwork
from features.runtime.numerics import detect_openvino_runtime
from features.store import FeatureTable
from pipelines.jobs import quantized_extractor
from schemas.errors import CaptError, CorruptFileError, StoreError, UsageError
from tests.golden.data import write_captions, write_images

SIDE = 32
NIC = {"embedding_dim": 12, "units": 16, "batch_size": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a small extractor."""
    path: Path = tmp_path_factory.mktemp("model") / "model.keras"
    keras.utils.set_random_seed(3)
    image = keras.Input((SIDE, SIDE, 3))
    maps = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    keras.Model(image, keras.layers.Conv2D(12, 3, padding="same", activation="relu")(maps)).save(path)
    return path


def prepare(store: Path, images: Path, model: Path, precision: str = "int8", **options: Any) -> dict[str, Any]:
    return capt.prepare_features(  # type: ignore[no-any-return]
        store=str(store),
        images=[str(images)],
        extractor=f"custom:{model}",
        dataset_type="folder",
        preprocess="tf",
        precision=precision,
        **options,
    )


def sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def open_table(store: Path, fingerprint: str) -> FeatureTable:
    tables = capt.open_store(store).feature_tables()
    return next(table for table in tables if table.fingerprint == fingerprint)


def test_every_job_computes_with_the_network_of_the_first(
    tmp_path: Path, photos: Callable[..., Path], model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for package in ("openvino", "nncf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    store = tmp_path / "store"
    with pytest.raises(CaptError) as too_few:
        prepare(store, photos(3), model)
    assert too_few.value.location == "--precision"
    with caplog.at_level(logging.WARNING):
        first = prepare(store, photos(12), model)
    assert first["ok"] == 12
    assert "12 images" in caplog.text
    table = open_table(store, first["fingerprint"])
    assert (table.facts.network_format, table.facts.numerics) == ("openvino", detect_openvino_runtime().numerics)
    assert "openvino" in table.facts.toolchain
    network = table.extractor_path.read_bytes()

    # More images, another dataset and collection of garbage keep the network.
    assert prepare(store, photos(14), model)["ok"] == 2
    assert prepare(store, photos(3, "others", first=20), model, dataset_name="others")["ok"] == 3
    capt.store_gc(store=str(store), older_than="0s")
    assert capt.store_verify(store=str(store))["damaged"] == []
    table = open_table(store, first["fingerprint"])
    assert table.rows == 17
    assert {manifest.facts.network for manifest in table.manifests} == {table.facts.network}
    assert table.extractor_path.read_bytes() == network

    # `auto` never chooses int8, not even if the store has no other table.
    other = prepare(store, photos(14), model, "auto")
    assert other["precision"] != "int8"
    assert other["fingerprint"] != first["fingerprint"]

    # A corrupt record is restored.
    record = table.root / "network.json"
    content = record.read_bytes()
    record.write_bytes(b"{}")
    assert prepare(store, photos(14), model)["ok"] == 0
    assert record.read_bytes() == content

    # A corrupt network is neither used nor replaced, not even if no image is missing.
    table.extractor_path.write_bytes(b"corrupt")
    with pytest.raises(StoreError) as corrupt:
        prepare(store, photos(15), model)
    assert corrupt.value.location == str(table.extractor_path)
    with pytest.raises(StoreError):
        prepare(store, photos(15), model, dry_run=True)
    with pytest.raises(CorruptFileError):
        capt.store_verify(store=str(store))
    with pytest.raises(StoreError):
        prepare(store, photos(14), model)
    table.extractor_path.unlink()
    with pytest.raises(StoreError):
        prepare(store, photos(15), model)
    table.extractor_path.write_bytes(network)
    assert prepare(store, photos(15), model)["ok"] == 1


def test_a_corrupt_network_of_no_rows_is_quantized_again(
    tmp_path: Path, photos: Callable[..., Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("openvino", "nncf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    store = tmp_path / "store"

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("pipelines.prepare_features.ExtractorSource", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(store, photos(12), model)
    (network,) = (store / "networks").iterdir()
    content = network.read_bytes()
    network.write_bytes(b"corrupt")
    assert prepare(store, photos(12), model)["ok"] == 12
    assert network.read_bytes() == content
    assert capt.store_verify(store=str(store))["damaged"] == []


def test_of_two_jobs_that_quantize_at_once_both_use_the_network_recorded_first(
    tmp_path: Path, photos: Callable[..., Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("openvino", "nncf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    store, quantize = tmp_path / "store", quantized_extractor.quantize

    def lose(graph: bytes, pixels: Any) -> QuantizedNetwork:
        with monkeypatch.context() as other:
            other.setattr(quantized_extractor, "quantize", quantize)
            assert prepare(store, photos(12, "others", first=20), model, dataset_name="others")["ok"] == 12
        return QuantizedNetwork(b"a network that is recorded second", np.ones(len(pixels)))

    monkeypatch.setattr(quantized_extractor, "quantize", lose)
    summary = prepare(store, photos(12), model)
    assert summary["ok"] == 12
    table = open_table(store, summary["fingerprint"])
    assert table.rows == 24
    assert len({manifest.facts.network for manifest in table.manifests}) == 1
    assert capt.store_verify(store=str(store))["damaged"] == []


@pytest.mark.parametrize(
    ("options", "location"),
    [
        ({"device": "gpu"}, "--device"),
        ({"extractor": "pixels"}, "--precision"),
        ({"extractor": "scene_network"}, "--precision"),
    ],
)
def test_options_that_do_not_fit_int8_are_refused(
    tmp_path: Path, photos: Callable[..., Path], options: dict[str, Any], location: str
) -> None:
    with pytest.raises(UsageError) as caught:
        capt.prepare_features(
            store=str(tmp_path / "store"),
            images=[str(photos(1))],
            dataset_type="folder",
            precision="int8",
            **options,
        )
    assert caught.value.location == location


def test_a_missing_package_is_one_line_that_names_the_extra(
    tmp_path: Path, photos: Callable[..., Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
    with pytest.raises(UsageError) as caught:
        prepare(tmp_path / "store", photos(1), model)
    assert "capt[openvino]" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_captions_with_the_quantized_network_of_its_table(tmp_path: Path, model: Path) -> None:
    for package in ("openvino", "nncf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    store, run_dir = tmp_path / "store", tmp_path / "run"
    images, annotations = write_images(tmp_path / "images", 16), write_captions(tmp_path / "captions.jsonl", 16)
    given: dict[str, Any] = {"store": str(store), "dataset_type": "jsonl", "annotations": [str(annotations)]}
    seen = capt.prepare_features(
        images=[str(images)], extractor=f"custom:{model}", preprocess="tf", pooling="avg", precision="int8", **given
    )
    capt.prepare_captions(**given)
    capt.train_captioner(store=str(store), run_dir=str(run_dir), model="nic", epochs=1, hyperparameters=NIC)
    table = open_table(store, seen["fingerprint"])
    run = capt.load_run(run_dir)
    assert (run.path / "network.openvino").read_bytes() == table.extractor_path.read_bytes()

    # Features of the store and those of an image give the same caption.
    (expected,) = run.caption_features(table.get(sha256(images / "003.png"))[None])
    caption = run.caption(images / "003.png")
    assert (caption.text, caption.score) == (expected.text, expected.score)
    capt.evaluate(runs=str(run_dir), split="val", num_examples=0)

    # TensorFlow's graph cannot have its extractor.
    with pytest.raises(UsageError) as refused:
        capt.export(run=str(run_dir), out=str(tmp_path / "saved"))
    assert refused.value.location == str(run.path / "network.openvino")
