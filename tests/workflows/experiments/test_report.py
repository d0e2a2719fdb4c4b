"""The report shows every trial of an experiment, and TensorBoard shows their hyperparameters."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import capt
from schemas.errors import CaptError, StoreError, UsageError
from tests.conftest import noise_image
from tests.workflows.experiments.files import MERGE, captions_experiment, write_yaml
from tests.workflows.test_example_pages import Page
from workflows.experiments.report_page import plot_curves

NASTY = 'A <b>thing</b> seen & "said"'
DONE = ("merge-pooled-words-seed0", "merge-pooled-words-seed1", "wide-pooled-words-seed0", "wide-pooled-words-seed1")
FAILED = "breaks-pooled-words-seed0"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs an experiment with four finished trials and a failed one; returns its directory."""
    root = tmp_path_factory.mktemp("experiment")
    images, annotations = root / "images", {"images": [], "annotations": []}
    images.mkdir()
    for number in range(20):
        noise_image(number).save(images / f"{number}.jpg")
        annotations["images"].append({"id": number, "file_name": f"{number}.jpg"})
        annotations["annotations"].append({"id": number, "image_id": number, "caption": f"{NASTY} {number}"})
    path = root / "captions_train2017.json"
    path.write_text(json.dumps(annotations))
    entries = captions_experiment(
        root,
        images,
        path,
        models={"merge": MERGE, "wide": {**MERGE, "units": 12}, "breaks": {**MERGE, "learning_rate": 1e30}},
        seeds=[0, 1],
        exclude=[{"model": "breaks", "seed": 1}],
    )
    search_path = os.environ["PATH"]
    os.environ["PATH"] = "/nothing"  # METEOR takes seconds to start
    try:
        with pytest.raises(CaptError, match="1 of 5 trials failed"):
            capt.experiment_run(file=str(write_yaml(root / "experiment.yaml", entries)))
    finally:
        os.environ["PATH"] = search_path
    return root / "out"


def test_the_page_shows_scores_curves_costs_and_captions_of_all_trials(experiment: Path) -> None:
    report = capt.experiment_report(directory=str(experiment), num_images=3)
    assert report["page"] == str(experiment / "report.html")
    assert (report["done"], report["failed"], report["pending"]) == (4, 1, 0)
    assert report["best"] in DONE
    assert {each["trial"] for each in report["trials"]} == {*DONE, FAILED}
    for each in report["trials"]:
        if each["trial"] != FAILED:
            low, high = each["intervals"]["bleu_1"]
            assert low <= each["scores"]["bleu_1"] <= high
            assert each["seconds"]["training"] > 0
    text = (experiment / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert sum(src.startswith("data:image/png") for src in pictures) == 1
    assert sum(src.startswith("data:image/jpeg") for src in pictures) == 3
    assert not any(tag == "script" for tag, _ in page.tags)
    shown = "".join(page.texts)
    for trial in (*DONE, FAILED):
        assert trial in shown
    assert NASTY in shown
    assert "<b>thing</b>" not in text
    assert re.search(r"<td[^>]*>\d+\.\d \(\d+\.\d to \d+\.\d\)</td>", text)


def test_the_page_lists_the_differences_of_any_two_trials(experiment: Path, tmp_path: Path) -> None:
    capt.experiment_report(directory=str(experiment), output=str(tmp_path / "page.html"), num_images=0)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    parts = dict(re.findall(r"from <b>([^<]+)</b> to …</summary>(.*?)</details>", text, re.DOTALL))
    assert set(parts) == {*DONE, FAILED}
    others = dict(re.findall(r"<th scope=\"row\">([^<]+)</th><td>(.*?)</td>", parts[DONE[0]], re.DOTALL))
    assert set(others) == {*DONE, FAILED} - {DONE[0]}
    assert "<code>seed</code>: 0 → 1" in others[DONE[1]]
    assert "units" not in others[DONE[1]]
    assert re.search(r"CIDEr-D</code>: .* → .*, difference -?\d+\.\d \(-?\d+\.\d to -?\d+\.\d\)", others[DONE[1]])
    assert "difference" not in others[FAILED]
    assert "<code>units</code>: 8 → 12" in others[DONE[2]]
    assert "seed" not in others[DONE[2]]
    assert "<code>learning_rate</code>: 0.001 → 1e+30" in others[FAILED]


def test_a_report_without_experiment_or_store(experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="capt experiment run"):
        capt.experiment_report(directory=str(tmp_path))
    with pytest.raises(UsageError, match="--output"):
        capt.experiment_report(directory=str(experiment), output=str(tmp_path))
    store = experiment.parent / "store"
    moved = store.rename(tmp_path / "store")
    try:
        report = capt.experiment_report(directory=str(experiment), output=str(tmp_path / "page.html"))
    finally:
        moved.rename(store)
    assert any(str(store) in note for note in report["notes"])
    assert "the image is not available" in (tmp_path / "page.html").read_text(encoding="utf-8")


@contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """Starts a TensorBoard server of these logs; returns its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def request(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    message = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(message, timeout=30) as answer:
        return json.load(answer)


def sessions(address: str) -> list[dict[str, Any]]:
    """Returns the trials of the HPARAMS tab, once the server has read all of them."""
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    body = {"experimentName": "", "allowedStatuses": statuses, "colParams": [], "startIndex": 0, "sliceSize": 100}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            found = request(address, "/data/plugin/hparams/session_groups", body).get("sessionGroups", [])
            if len(found) == len(DONE):
                return found
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError("TensorBoard does not show the trials")


def test_tensorboard_shows_the_trials_with_their_hyperparameters(experiment: Path) -> None:
    with tensorboard(experiment) as address:
        found = {session["name"]: session for session in sessions(address)}
        runs = request(address, "/data/runs")
    assert set(found) == set(DONE)
    wide = found["wide-pooled-words-seed1"]
    assert wide["hparams"]["units"] == 12
    assert wide["hparams"]["seed"] == 1
    assert (wide["hparams"]["models"], wide["hparams"]["model"]) == ("wide", "merge")
    assert wide["hparams"]["features"] == "pooled"
    metrics = {(each["name"]["group"], each["name"]["tag"]) for each in wide["metricValues"]}
    assert {("", "bleu_1"), ("", "cider_d"), ("validation", "epoch_loss")} <= metrics
    assert {f"runs/{trial}/logs/validation" for trial in DONE} <= set(runs)


def test_trials_of_both_objectives_have_curves_in_one_figure() -> None:
    cross_entropy = {"epoch": 1, "loss": 2.0, "token_accuracy": 0.4, "val_loss": 2.1, "val_token_accuracy": 0.4}
    self_critical = {"epoch": 1, "loss": 0.01, "reward": 0.5, "val_loss": 2.2, "val_token_accuracy": 0.4}
    without_validation = {"epoch": 1, "loss": 0.01, "reward": 0.5}
    trials = {"first": [cross_entropy], "second": [self_critical], "third": [without_validation]}
    figure = plot_curves(trials)
    assert figure is not None
    assert figure.startswith(b"\x89PNG")
