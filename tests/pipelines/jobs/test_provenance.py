"""Rows of another provenance are not added to a table unless allowed, and stats show them."""

from pathlib import Path
from typing import Any

import pytest

import capt
from features.extractors import frozen_graph, runtimes
from features.extractors.pixels import NUMERICS
from features.runtime.numerics import detect_native_precision
from pipelines.jobs import extract_shard, provenance
from schemas.errors import StoreError
from schemas.table_config import FeatureTableConfig

SMALL = {"extractor": "mobilenet_v3_small", "weights": "random:7", "dataset_type": "folder"}


def prepare(store: Path, images: Path, **options: Any) -> dict[str, Any]:
    return capt.prepare_features(store=str(store), images=[str(images)], **{**SMALL, **options})  # type: ignore[no-any-return]


def pretend(monkeypatch: pytest.MonkeyPatch, **made: str) -> None:
    """Have this machine be of another kind."""
    toolchain = provenance.detect_toolchain()
    if "numerics" in made:
        for module in (runtimes, frozen_graph):
            monkeypatch.setattr(module, "detect_numerics_class", lambda precision: made["numerics"])
    for module in (provenance, extract_shard):
        monkeypatch.setattr(
            module, "detect_toolchain", lambda: toolchain | {k: v for k, v in made.items() if k != "numerics"}
        )


def here() -> provenance.Provenance:
    """What this machine computes with `--precision auto`."""
    table_config = FeatureTableConfig(
        extractor="mobilenet_v3_small",
        weights="random:7",
        layer="output",
        height=224,
        width=224,
        precision=detect_native_precision(),
    )
    return provenance.local_provenance(table_config)


@pytest.mark.parametrize(
    "made", [{"numerics": "cpu-avx2"}, {"pillow": "9.0.0"}, {"tensorflow": "2.0"}, {"libjpeg": "1"}]
)
def test_a_table_of_another_provenance_is_refused_with_both_values(
    tmp_path: Path, photos: Any, monkeypatch: pytest.MonkeyPatch, made: dict[str, str]
) -> None:
    store = tmp_path / "store"
    ((name, value),) = made.items()
    with monkeypatch.context() as then:
        pretend(then, **made)
        prepare(store, photos(2), pooling="avg")
    assert prepare(store, photos(2), pooling="avg")["cached"] == 2
    ours = here().deciding[name]
    for plan in (False, True):
        with pytest.raises(StoreError, match="--allow-mixed-numerics") as caught:
            prepare(store, photos(3), pooling="avg", dry_run=plan)
        shown = {"numerics": "numerics class"}.get(name, name)
        assert f"the table has rows computed with {shown} {value}" in str(caught.value)
        assert f"this run has rows computed with {shown} {ours}" in str(caught.value)
    (table,) = capt.open_store(store).feature_tables()
    assert table.rows == 2


def test_allowed_mixed_rows_show_in_stats(tmp_path: Path, photos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    with monkeypatch.context() as then:
        pretend(then, numerics="cpu-avx2", pillow="9.0.0")
        prepare(store, photos(2), pooling="avg")
    assert prepare(store, photos(5), pooling="avg", allow_mixed_numerics=True)["ok"] == 3
    (entry,) = capt.store_stats(store=str(store))["feature_tables"]
    assert entry["numerics"] == {"cpu-avx2": 2, here().numerics: 3}
    assert [made["pillow"] for made in entry["toolchains"]] == ["9.0.0", provenance.detect_toolchain()["pillow"]]


def test_libraries_that_do_not_affect_values_may_differ(
    tmp_path: Path, photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    with monkeypatch.context() as then:
        pretend(then, keras="3.0", pyarrow="1.0", numpy="2.0")
        prepare(store, photos(2), pooling="avg")
    assert prepare(store, photos(3), pooling="avg")["ok"] == 1


def compiled(device: str, **versions: str) -> provenance.Provenance:
    toolchain = {"pillow": "12", "libjpeg": "3", "keras": "3.15", "jax": "0.8"} | versions
    return provenance.Provenance(numerics=f"{device}/jax/float32", toolchain=toolchain)


@pytest.mark.parametrize(
    ("device", "changed", "is_refused"),
    [
        ("cpu/avx2", {"keras": "3.16"}, True),
        ("gpu/some chip", {"keras": "3.16"}, True),
        ("gpu/some chip", {"nvidia-cudnn-cu12": "9.9"}, True),
        ("gpu/some chip", {"jax-cuda12-plugin": "0.8"}, True),
        ("cpu/avx2", {"nvidia-cudnn-cu12": "9.9"}, False),
        ("cpu/avx2", {"numpy": "3.0"}, False),
    ],
)
def test_libraries_that_compute_compiled_models_guard_their_rows(
    device: str, changed: dict[str, str], is_refused: bool
) -> None:
    sides = [compiled(device)], [compiled(device, **changed)]
    if not is_refused:
        provenance.check_mixture("table", *sides, allow_mixed=False)
        return
    with pytest.raises(StoreError) as caught:
        provenance.check_mixture("table", *sides, allow_mixed=False)
    assert next(iter(changed)) in str(caught.value)


def test_pixels_depend_on_image_libraries_only() -> None:
    made = [
        provenance.Provenance(numerics=NUMERICS, toolchain={"pillow": "12", "libjpeg": "3", backend: "1"})
        for backend in ("tensorflow", "jax")
    ]
    provenance.check_mixture("table", made[:1], made[1:], allow_mixed=False)
    other = provenance.Provenance(numerics=NUMERICS, toolchain={"pillow": "13", "libjpeg": "3"})
    with pytest.raises(StoreError, match="pillow"):
        provenance.check_mixture("table", made, [other], allow_mixed=False)


def compute_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the worker that computes be of another kind than this machine, which launches."""
    monkeypatch.setattr(frozen_graph, "detect_numerics_class", lambda precision: "gpu/some chip/tensorflow/float32")


def refuse_elsewhere(store: Path, photos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare two images here; a third, that a worker of another kind computes, is refused."""
    prepare(store, photos(2), pooling="avg")
    compute_elsewhere(monkeypatch)
    with pytest.raises(StoreError):
        prepare(store, photos(3), pooling="avg")


def test_rows_of_a_worker_with_another_provenance_are_refused_at_commit(
    tmp_path: Path, photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    with monkeypatch.context() as then:
        refuse_elsewhere(store, photos, then)
        (table,) = capt.open_store(store).feature_tables()
        assert table.rows == 2
        assert prepare(store, photos(3), pooling="avg", allow_mixed_numerics=True)["ok"] == 1
    (entry,) = capt.store_stats(store=str(store))["feature_tables"]
    assert entry["numerics"] == {here().numerics: 2, "gpu/some chip/tensorflow/float32": 1}


def test_a_new_table_records_the_provenance_of_the_worker(
    tmp_path: Path, photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        compute_elsewhere(then)
        prepare(tmp_path / "store", photos(2), pooling="avg")
    (entry,) = capt.store_stats(store=tmp_path / "store")["feature_tables"]
    assert entry["numerics"] == {"gpu/some chip/tensorflow/float32": 2}


def test_units_of_another_provenance_are_computed_again(
    tmp_path: Path, photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    with monkeypatch.context() as then:
        refuse_elsewhere(store, photos, then)
    assert prepare(store, photos(3), pooling="avg")["ok"] == 1
    (entry,) = capt.store_stats(store=str(store))["feature_tables"]
    assert entry["numerics"] == {here().numerics: 3}


def test_versions_of_a_decoder_count_if_both_sides_have_it() -> None:
    def with_versions(**versions: str) -> provenance.Provenance:
        return provenance.Provenance(numerics="cpu", toolchain={"pillow": "12", **versions})

    for name in ("libavif", "openjpeg", "pi-heif"):
        without, old, new = with_versions(), with_versions(**{name: "1"}), with_versions(**{name: "2"})
        for held, added in (([without], new), ([without, new], without), ([without, new], new)):
            provenance.check_mixture("table", held, [added], allow_mixed=False)
        with pytest.raises(StoreError, match=f"{name} 1"):
            provenance.check_mixture("table", [without, old], [new], allow_mixed=False)
    assert {"libavif", "openjpeg"} <= here().deciding.keys()
