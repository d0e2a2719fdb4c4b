"""A damaged file of a store, run or experiment is one line with the right exit code, and never another exception."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import capt
from schemas.errors import CaptError, CorruptFileError, StoreError, UsageError
from schemas.strict_json import parse_json
from tests.conftest import noise_image
from trainer.runs.checkpoints import STATE, Checkpoints
from trainer.runs.metadata import read_metadata
from workflows.experiments.comparison import compare_predictions, compare_trials
from workflows.experiments.config import read_experiment_config
from workflows.experiments.records import (
    ExperimentDirectory,
    ExperimentRecord,
    TrialResult,
    read_epochs,
    read_record,
)

DEEP = b"[" * 100_000 + b"]" * 100_000
NOT_JSON = {
    "nothing": b"",
    "nested deeply": DEEP,
    "an object that is nested deeply": b'{"version":' * 100_000,
    "not UTF-8": b'{"version": "\xff"}',
    "a NUL byte": b'{"version": 1}\0',
    "half of it": b'{"version": 1, "',
    "a key twice": b'{"version": 1, "version": 1}',
    "a number of many digits": b'{"version": ' + b"9" * 100_000 + b"}",
}
ANOTHER = {
    "null": b"null",
    "a list": b"[]",
    "a text": b'"text"',
    "an empty object": b"{}",
    "infinity": b'{"format": "capt-store", "version": 1e999, "network": 1e999, "shape": 1, "paths": 7}',
    "wrong types": b'{"version": [], "format": {}, "manifest": {}, "network": [], "shape": "x", "paths": [{}]}',
    "many bytes": b'"' + b"x" * (8 << 20) + b'"',
}
CONTENTS = NOT_JSON | ANOTHER
every_content = pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with images, annotations and a store of them."""
    root = tmp_path_factory.mktemp("made")
    (root / "images").mkdir()
    for number in range(3):
        noise_image(number, 12, 9).save(root / "images" / f"{number}.png")
    (root / "c.csv").write_text("image,caption,split\n0.png,one dog,train\n1.png,a cat,train\n2.png,a bird,val\n")
    prepare(root)
    capt.prepare_captions(store=str(root / "s"), dataset_type="csv", annotations=[str(root / "c.csv")])
    return root


def prepare(root: Path, store: str = "s") -> dict[str, Any]:
    options: dict[str, Any] = {"dataset_type": "csv", "extractor": "pixels", "height": 8, "width": 8}
    images, annotations = [str(root / "images")], [str(root / "c.csv")]
    result: dict[str, Any] = capt.prepare_features(
        store=str(root / store), images=images, annotations=annotations, **options
    )
    return result


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """A block that works, or fails as capt does."""
    failures: list[CaptError] = []
    try:
        yield
    except CaptError as error:
        failures.append(error)
    assert all(failure.exit_code in (1, 4) and "\n" not in str(failure) for failure in failures)


COMMANDS: dict[str, Callable[[str], Any]] = {
    "ls": lambda store: capt.store_ls(store=store),
    "stats": lambda store: capt.store_stats(store=store),
    "show": lambda store: capt.store_show(store=store),
    "verify": lambda store: capt.store_verify(store=store),
    "compact": lambda store: capt.store_compact(store=store),
    "gc": lambda store: capt.store_gc(store=store, older_than="0s"),
    "models": lambda store: capt.models_ls(store=store),
}


@pytest.mark.slow
@every_content
def test_a_store_with_a_corrupt_file_is_reported_without_a_traceback(
    made: Path, tmp_path: Path, content: bytes
) -> None:
    names = [path.relative_to(made / "s") for path in (made / "s").rglob("*.json") if path.is_file()]
    assert len(names) >= 8
    for name in names:
        store = tmp_path / "s"
        shutil.copytree(made / "s", store)
        (store / name).chmod(0o644)
        (store / name).write_bytes(content)
        for run in COMMANDS.values():
            with one_line():
                run(str(store))
        with one_line():
            prepare(made, str(store))
        shutil.rmtree(store)


@pytest.mark.parametrize("pattern", ["capt-store.json", "features/*/recipe.json", "text/*/manifests/*.json"])
@every_content
def test_a_corrupt_file_of_a_store_ends_verify_with_exit_code_4(
    made: Path, tmp_path: Path, content: bytes, pattern: str
) -> None:
    store = tmp_path / "s"
    shutil.copytree(made / "s", store)
    (path,) = store.glob(pattern)
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        capt.store_verify(store=str(store))
    assert caught.value.exit_code == 4


# === Runs and experiments ===

RUN_COMMANDS: dict[str, Callable[[str], Any]] = {
    "caption": lambda run: capt.caption(run=run, images=["a.png"]),
    "evaluate": lambda run: capt.evaluate(runs=[run]),
    "export": lambda run: capt.export(run=run, out="out"),
}


@every_content
def test_a_corrupt_run_is_one_line(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes(content)
    status = 4 if content in NOT_JSON.values() else 1
    for command in RUN_COMMANDS.values():
        with pytest.raises(StoreError) as caught:
            command("run")
        assert caught.value.exit_code == status
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError):
        read_metadata(tmp_path / "run")


@every_content
def test_a_corrupt_state_of_training_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(CorruptFileError):
        Checkpoints(tmp_path).state()


@every_content
def test_a_corrupt_record_of_an_experiment_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(StoreError) as caught:
        read_record(tmp_path / "r.json", TrialResult)
    assert caught.value.exit_code == (4 if content in NOT_JSON.values() else 1)


def test_a_record_of_another_version_names_what_helps(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b'{"version": 1, "trials": []}')
    with pytest.raises(StoreError, match="Run the experiment again; finished trials are kept"):
        read_record(tmp_path / "r.json", ExperimentRecord)
    with pytest.raises(StoreError, match="Delete the file"):
        read_record(tmp_path / "r.json", TrialResult)


@pytest.mark.parametrize("content", [b"{", b"[1, 2]\n", b"7\n", b"\xff", b'{"a": 1, "a": 2}', DEEP])
def test_corrupt_metrics_of_a_run_are_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(CorruptFileError):
        read_epochs(tmp_path)


EVALUATED = {
    "task": "captioner",
    "split": "val",
    "run_dir": "o/runs/one",
    "scores_path": "o/runs/one/evaluation/val/scores.json",
}
RESULT = TrialResult(trial="one", status="done", identity="", evaluated=EVALUATED)
DAMAGED_SCORES = [
    b"image\tcider_d\na\tmuch\n",
    b"image\tcider_d\na\n",
    b"image\ta\nb\t1\n",
    b"\xff\n",
    b"image\tcider_d\na\t1\t2\n",
]


@pytest.mark.parametrize("content", DAMAGED_SCORES)
def test_corrupt_scores_of_an_evaluation_are_corrupt(tmp_path: Path, content: bytes) -> None:
    directory = ExperimentDirectory(tmp_path)
    scores = directory.run("one") / "evaluation" / "val" / "images.tsv"
    scores.parent.mkdir(parents=True)
    scores.write_bytes(b"image\tcider_d\na\t0.5\n")
    assert compare_trials(directory, [RESULT], "cider_d").values.tolist() == [[0.5]]
    scores.write_bytes(content)
    with pytest.raises(CorruptFileError):
        compare_trials(directory, [RESULT], "cider_d")


@pytest.mark.parametrize("lacking", ["run_dir", "scores_path"])
def test_a_result_without_the_place_of_its_evaluation_is_corrupt(tmp_path: Path, lacking: str) -> None:
    evaluated = {name: value for name, value in EVALUATED.items() if name != lacking}
    result = RESULT.model_copy(update={"evaluated": evaluated})
    with pytest.raises(CorruptFileError, match=r"one\.json"):
        compare_trials(ExperimentDirectory(tmp_path), [result], "cider_d")


@pytest.mark.parametrize("row", ["a\tx\t{", "a\tx", "a\tx\t7"])
def test_corrupt_predictions_of_an_evaluation_are_corrupt(tmp_path: Path, row: str) -> None:
    directory, config = ExperimentDirectory(tmp_path), read_experiment_config(_write_experiment(tmp_path))
    rows = directory.run("one") / "evaluation" / "val" / "images.tsv"
    rows.parent.mkdir(parents=True)
    long = json.dumps(["a long reference " * 10_000])
    rows.write_text(f"image\tprediction\treferences\na\tx\t{long}\n")
    (image,) = compare_predictions(config, directory, [RESULT], None, 1)
    assert len(image.references[0]) > 1 << 17
    rows.write_text(f"image\tprediction\treferences\n{row}\n")
    with pytest.raises(CorruptFileError):
        compare_predictions(config, directory, [RESULT], None, 1)


def _write_experiment(directory: Path) -> Path:
    path = directory / "experiment.yaml"
    path.write_text(
        "store: s\noutput_dir: o\ndata: {dataset_type: csv, images: i, annotations: a}\n"
        "features: {f: {}}\ncaptions: {c: {}}\nmodels: {nic: {}}\n"
    )
    return path


# === Files of words, labels and settings ===

WRONG_LINES = {
    "nothing": b"",
    "not UTF-8": b"a0 caf\xe9\n",
    "a NUL byte": b"a0 dog\0\n",
    "UTF-16": "a0 dog\n".encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
    "JSON": b'{"a0": "dog"}',
    "a long line": b"a" * (1 << 20),
    "a line twice": b"dog\ndog\n",
}


@pytest.mark.parametrize("content", WRONG_LINES.values(), ids=WRONG_LINES.keys())
def test_a_wrong_file_of_words_is_wrong_usage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        capt.synth_captcha(out=str(tmp_path / "out"), num_images=1, word_list=str(tmp_path / "words.txt"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(WRONG_LINES.keys() - {"UTF-16"}))
def test_a_wrong_file_of_labels_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    noise_image(1).save(tmp_path / "images" / "a0.png")
    (tmp_path / "labels.txt").write_bytes(WRONG_LINES[name])
    with pytest.raises(CaptError) as caught:
        capt.prepare_captcha(
            store=str(tmp_path / "s"), images=[str(tmp_path / "images")], labels=str(tmp_path / "labels.txt")
        )
    assert caught.value.exit_code in (1, 2, 3)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("keys", ["10: 1\n0xA: 2\n", "yes: 1\ntrue: 2\n", "a: 1\n'a': 2\n", "1: 1\n'1': 2\n"])
def test_equal_keys_that_are_written_differently_are_wrong_usage(tmp_path: Path, keys: str) -> None:
    (tmp_path / "a.yaml").write_text(keys)
    with pytest.raises(UsageError):
        capt.retrain(file=str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(content)


def test_json_is_read_as_it_is() -> None:
    assert parse_json(json.dumps({"a": [{"b": 1}, {"b": 2}], "é": None}, ensure_ascii=False)) == {
        "a": [{"b": 1}, {"b": 2}],
        "é": None,
    }
