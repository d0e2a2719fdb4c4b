"""A task is prepared, trained and evaluated from plain options, and refuses those that it does not know, by name."""

from pathlib import Path
from typing import Any

import pytest

import capt
from features.store import open_store
from schemas.errors import TooManyFailuresError, UsageError
from trainer.runs.metadata import read_metadata
from workflows.prepared_tasks import PREPARATIONS, evaluate_run, find_prepared_task

NETWORK = {"extractor": "mobilenet_v3_small", "weights": "random:7", "height": 64, "width": 64}
SMALL_CAPTIONER = {"model": "merge", "embedding_dim": 8, "units": 8, "epochs": 1, "num-sample-captions": 0}
SMALL_RECOGNIZER = {
    "profile": "quick",
    "epochs": 1,
    "filters": [4, 8],
    "blocks_per_stage": [0, 0],
    "units": 8,
    "batch_size": 8,
}


@pytest.mark.slow
def test_a_captioner_is_prepared_trained_and_scored(tmp_path: Path, photos: Any, coco: Any) -> None:
    task, store = find_prepared_task("captioner"), tmp_path / "store"
    data = {"dataset_type": "coco", "annotations": str(coco(range(12))), "split_ratios": "0.5,0.5,0"}
    features = {**data, "images": str(photos(12)), **NETWORK, "pooling": "avg"}
    tables = {
        "features": task.preparations["features"].prepare(store, features)["fingerprint"],
        "captions": task.preparations["captions"].prepare(store, data)["fingerprint"],
    }
    opened = open_store(store)
    for kind, options in (("features", features), ("captions", data)):
        assert task.preparations[kind].prepare(store, options, dry_run=True)["fingerprint"] == tables[kind]
    task.check_shape(SMALL_CAPTIONER, opened.feature_table(tables["features"]).shape, "there")
    assert task.train(store, tmp_path / "run", SMALL_CAPTIONER, tables)["epochs"] == 1
    training = read_metadata(tmp_path / "run").training
    written = training.model_dump(mode="json", exclude=set(training.without_effect))
    assert task.settings(SMALL_CAPTIONER).items() >= written.items()
    scores = task.task.read_scores(evaluate_run(store, tmp_path / "run", {"split": "val", "num_examples": 0}))
    assert next(iter(task.task.metrics)) == "cider_d"
    low, high = scores["bleu_1"].interval
    assert low <= scores["bleu_1"].value <= high


@pytest.mark.slow
def test_a_recognizer_is_prepared_trained_and_scored(tmp_path: Path) -> None:
    task, store = find_prepared_task("captcha"), tmp_path / "store"
    capt.synth_captcha(out=tmp_path / "data", num_images=60, seed=3)
    made = str(tmp_path / "data" / "words_captcha")
    prepare = task.preparations["features"]
    options = {"images": made, "labels": made, "height": 24, "width": 48}
    table = prepare.prepare(store, options)["fingerprint"]
    assert prepare.prepare(store, options, dry_run=True)["fingerprint"] == table
    task.check_shape(SMALL_RECOGNIZER, open_store(store).feature_table(table).shape, "there")
    assert task.train(store, tmp_path / "run", SMALL_RECOGNIZER, {"features": table})["epochs"] == 1
    scores = task.task.read_scores(evaluate_run(store, tmp_path / "run", {"num_examples": 0}))
    assert set(scores) == set(task.task.metrics)
    assert scores["exact_match"].interval[0] <= scores["exact_match"].value


@pytest.mark.parametrize("task", PREPARATIONS)
def test_options_of_rows_and_of_records_are_disjoint(task: str) -> None:
    for each in find_prepared_task(task).preparations.values():
        assert {*each.row_options, *each.dataset_options, "store", "dry_run"} == set(each.options.model_fields)
        assert not set(each.row_options) & set(each.dataset_options)


def test_unknown_options_are_refused_by_name(tmp_path: Path) -> None:
    captioner, captcha = find_prepared_task("captioner"), find_prepared_task("captcha")
    with pytest.raises(UsageError, match="unknown option 'pooler'"):
        captioner.preparations["features"].prepare(tmp_path, {"dataset_type": "coco", "images": "x", "pooler": "avg"})
    with pytest.raises(UsageError, match="--images: a value is required"):
        captcha.preparations["features"].prepare(tmp_path, {"labels": "x"})
    with pytest.raises(UsageError, match="unknown option 'unit'"):
        captioner.settings({"model": "merge", "unit": 3})
    with pytest.raises(UsageError, match="feature_table is not a hyperparameter"):
        captcha.settings({"feature_table": "00"})
    with pytest.raises(UsageError, match="requires pooled features"):
        captioner.check_shape({"model": "merge"}, (64, 2048), "there")
    with pytest.raises(UsageError, match="there is no task 'speech'"):
        find_prepared_task("speech")


def test_the_backend_of_a_workflow_is_that_of_its_process(tmp_path: Path) -> None:
    """Keras has one backend per process, so a step cannot choose it, also not the one that the process has."""
    options = {"dataset_type": "folder", "images": "x", "backend": "tensorflow"}
    with pytest.raises(UsageError, match="KERAS_BACKEND") as caught:
        find_prepared_task("captioner").preparations["features"].parse(tmp_path, options)
    assert caught.value.location == "prepare features: backend"


ROW_OPTIONS = {
    ("captioner", "features"): (
        "extractor weights layer pooling height width preprocess precision storage_dtype resize_method resize_mode "
        "shortest_edge from_arrays array_names format compression batch_size num_shards assume_images resource_hint "
        "device backend"
    ),
    ("captioner", "captions"): "vocab_size min_count vocab_from standardize filters max_length",
    ("captcha", "features"): "height width resize_mode format compression num_shards",
}


@pytest.mark.parametrize(("task", "kind"), ROW_OPTIONS)
def test_every_option_of_prepare_decides_either_records_or_rows(task: str, kind: str) -> None:
    """A new option that decides rows is entered here; one that decides records, in `_DATASET_OPTIONS`."""
    preparation = find_prepared_task(task).preparations[kind]
    assert set(preparation.row_options) == set(ROW_OPTIONS[task, kind].split())


def test_an_error_of_a_preparation_has_no_result_of_the_workflow(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "ab.png").write_bytes(b"no picture")
    options = {"images": [str(tmp_path / "images")], "height": 24, "width": 64}
    with pytest.raises(TooManyFailuresError) as caught:
        find_prepared_task("captcha").preparations["features"].prepare(tmp_path / "store", options)
    assert caught.value.summary is None
