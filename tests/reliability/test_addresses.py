"""Addresses: what may be in a bucket is read from there, and an address is never taken for a local path."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import capt
from features.io.locations import parse_location
from features.synthetic.captchas.labels import read_words
from schemas.errors import CaptError, UsageError
from tests.conftest import noise_image
from tests.features.buckets import BUCKET, bucket
from trainer.data.label_file import read_label_file
from trainer.runs.run import load_run

PIXELS: dict[str, Any] = {"extractor": "pixels", "storage_dtype": "uint8", "height": 8, "width": 8}
COUNT = 6
ELSEWHERE = f"s3://{BUCKET}/elsewhere"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a directory in a bucket, with images, annotations and labels."""
    with bucket("s3", tmp_path_factory.mktemp("mirror")):
        root = f"s3://{BUCKET}/addresses"
        local = tmp_path_factory.mktemp("images")
        for number in range(COUNT):
            noise_image(number, 12, 9).save(local / f"a{number}.png")
            parse_location(f"{root}/images/a{number}.png").put((local / f"a{number}.png").read_bytes())  # type: ignore[attr-defined]
        rows = [
            {"image": f"a{number}.png", "caption": f"word{number} here", "split": "train"} for number in range(COUNT)
        ]
        files = {
            "c.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
            "labels.txt": "".join(f"a{number} word\n" for number in range(COUNT)),
            "words.txt": "cat\ndog\n",
        }
        for name, text in files.items():
            parse_location(f"{root}/{name}").put(text.encode())  # type: ignore[attr-defined]
        yield root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, in which no command makes a directory `s3:`."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir() if ":" in path.name] == []


@pytest.fixture
def prepared(served: str) -> str:
    """The address of a store with a dataset and its captions, and one of CAPTCHAs."""
    store = f"{served}/store"
    capt.prepare_features(**features(served))
    capt.prepare_captions(**captions(served))
    capt.prepare_captcha(**captchas(served))
    return store


def features(root: str) -> dict[str, Any]:
    given = {"dataset_type": "jsonl", "images": [f"{root}/images"], "annotations": [f"{root}/c.jsonl"], **PIXELS}
    return {"store": f"{root}/store", **given}


def captions(root: str) -> dict[str, Any]:
    return {"store": f"{root}/store", "dataset_type": "jsonl", "annotations": [f"{root}/c.jsonl"]}


def captchas(root: str) -> dict[str, Any]:
    return {"store": f"{root}/store", "images": [f"{root}/images"], "labels": f"{root}/labels.txt"}


# === Read from a bucket ===


def test_the_plan_of_each_preparation_finds_what_a_store_in_a_bucket_holds(served: str, prepared: str) -> None:
    for job, given in (
        (capt.prepare_features, features(served)),
        (capt.prepare_captions, captions(served)),
        (capt.prepare_captcha, captchas(served)),
    ):
        assert {key: job(dry_run=True, **given)[key] for key in ("hits", "misses", "cached")} == {
            "hits": COUNT,
            "misses": 0,
            "cached": COUNT,
        }


def test_the_plan_of_captions_for_a_store_that_is_not_there_yet_makes_none(served: str) -> None:
    plan = capt.prepare_captions(**{**captions(served), "store": ELSEWHERE}, dry_run=True)
    assert (plan["hits"], plan["misses"]) == (0, COUNT)
    assert not parse_location(ELSEWHERE).exists()


def test_an_experiment_names_its_store_by_address_and_finds_its_tables(served: str, prepared: str) -> None:
    Path("e.yaml").write_text(
        f"""task: captcha
store: {prepared}
output_dir: out
data: {{images: ["{served}/images"], labels: "{served}/labels.txt"}}
captcha: {{whole: {{}}}}
models: {{quick: {{profile: quick}}}}
"""
    )
    plan = capt.experiment_run(file="e.yaml", dry_run=True)
    assert plan["store"] == prepared
    assert [(table["hits"], table["misses"]) for table in plan["tables"]] == [(COUNT, 0)]


def test_the_plan_of_a_retraining_finds_what_a_store_in_a_bucket_holds(served: str, prepared: str) -> None:
    Path("r.yaml").write_text(
        f"""store: {prepared}
name: words
task: captcha
data: [{{images: ["{served}/images"], labels: "{served}/labels.txt"}}]
"""
    )
    plan = capt.retrain(file="r.yaml", dry_run=True)
    assert plan["store"] == prepared
    assert [(one["hits"], one["misses"]) for one in plan["prepared"]] == [(COUNT, 0)]


def test_files_of_words_and_labels_are_read_from_a_bucket(served: str) -> None:
    assert read_label_file(f"{served}/labels.txt") == {f"a{number}": "word" for number in range(COUNT)}
    assert read_words(f"{served}/words.txt") == ("cat", "dog")
    assert capt.synth_captcha(out="made", num_images=3, word_list=f"{served}/words.txt")["images"] == 3


# === Local alone ===

REFUSED: dict[str, Callable[[], Any]] = {
    "train captioner --run-dir": lambda: capt.train_captioner(store="store", run_dir=ELSEWHERE),
    "train captcha --run-dir": lambda: capt.train_captcha(store="store", run_dir=ELSEWHERE),
    "train captioner --warm-from": lambda: capt.train_captioner(
        store="store", run_dir="run", warm_start_from=ELSEWHERE
    ),
    "predict captions --out": lambda: capt.predict_captions(run="run", images=["images"], output=ELSEWHERE),
    "predict captcha --out": lambda: capt.predict_captcha(run="run", images=["images"], ids="0:2", output=ELSEWHERE),
    "caption --attention": lambda: capt.caption(run="run", images=["a.png"], attention_plot=f"{ELSEWHERE}.png"),
    "caption RUN": lambda: capt.caption(run=ELSEWHERE, images=["a.png"]),
    "read RUN": lambda: capt.recognize(run=ELSEWHERE, images=["a.png"]),
    "evaluate RUN": lambda: capt.evaluate(runs=[ELSEWHERE]),
    "export OUT": lambda: capt.export(run="run", out=ELSEWHERE),
    "synth scenes OUT": lambda: capt.synth_scenes(out=ELSEWHERE, num_images=5),
    "synth captcha OUT": lambda: capt.synth_captcha(out=ELSEWHERE, num_images=5),
    "synth captcha --fonts": lambda: capt.synth_captcha(out="made", num_images=5, font_dir=ELSEWHERE),
    "demo --out": lambda: capt.demo(output=ELSEWHERE),
    "fetch DIR": lambda: capt.fetch(dataset="flickr8k", directory=ELSEWHERE),
    "experiment report DIR": lambda: capt.experiment_report(directory=ELSEWHERE),
    "experiment report --out": lambda: capt.experiment_report(directory="out", output=ELSEWHERE),
    "experiment run FILE": lambda: capt.experiment_run(file=f"{ELSEWHERE}.yaml"),
    "retrain CONFIG": lambda: capt.retrain(file=f"{ELSEWHERE}.yaml"),
    "store show --out": lambda: capt.store_show(store="store", output=ELSEWHERE),
    "--weights": lambda: prepare_with(extractor="mobilenet_v3_small", weights=f"{ELSEWHERE}.h5"),
    "--extractor custom": lambda: prepare_with(extractor=f"custom:{ELSEWHERE}.keras"),
}


def prepare_with(**options: Any) -> Any:
    return capt.prepare_features(store="store", dataset_type="folder", images=["images"], **options)


@pytest.mark.parametrize("named", REFUSED)
def test_an_address_is_refused_where_a_local_path_is_needed(served: str, named: str, here: Path) -> None:
    with pytest.raises(UsageError) as caught:
        REFUSED[named]()
    assert ELSEWHERE in str(caught.value)
    assert {path.name for path in here.iterdir()} <= {"store"}


def test_an_experiment_in_a_bucket_is_refused(served: str) -> None:
    data = "data: {dataset_type: folder, images: [images]}"
    Path("e.yaml").write_text(f"store: store\noutput_dir: {ELSEWHERE}\n{data}\nmodels: {{nic: {{}}}}\n")
    with pytest.raises(UsageError):
        capt.experiment_run(file="e.yaml", dry_run=True)


@pytest.mark.parametrize("option", ["--config", "--log-file"])
def test_options_of_every_command_refuse_addresses(option: str) -> None:
    done = CliRunner().invoke(capt.application(), ["store", "ls", "store", option, f"{ELSEWHERE}.yaml"])
    assert done.exit_code == 2


@pytest.mark.parametrize("use", [capt.open_store, capt.load_run, load_run, parse_location])
def test_an_address_in_a_path_is_refused_for_it_has_lost_a_slash(use: Callable[[Path], Any]) -> None:
    with pytest.raises(UsageError):
        use(Path(ELSEWHERE))


def test_a_log_that_cannot_be_written_is_reported_in_one_line() -> None:
    command = [sys.executable, "-m", "capt", "store", "ls", "store", "--log-file", "none/log.txt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_stores_are_named_by_address_in_every_command_on_stores(prepared: str) -> None:
    assert capt.store_ls(store=prepared)["store"] == prepared
    assert capt.store_stats(store=prepared)["store"] == prepared
    assert capt.store_show(store=prepared, dataset="jsonl", num_examples=1)["store"] == prepared
    assert capt.store_verify(store=prepared)["damaged"] == []
    assert capt.store_gc(store=prepared, dry_run=True)["paths"] == []
    assert capt.models_ls(store=prepared)["store"] == prepared
    for command in (capt.models_show, capt.models_rollback):
        with pytest.raises(CaptError, match=prepared):
            command(store=prepared)
    assert capt.store_compact(store=prepared)["tables"] is not None
    assert capt.store_drop(store=prepared, dataset="captcha")["images"] == COUNT
