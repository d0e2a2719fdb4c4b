"""A promoted champion replaces the earlier one, and every request is answered meanwhile."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from features.store import Store
from schemas.manifests import ModelMetadata
from schemas.options.serving import Serve
from tests.features.store.stores import new_store
from tests.workflows.serving.http_client import Client
from workflows.model_registry import RegisteredModel, current_time
from workflows.serving.command import start
from workflows.serving.limits import ServingLimits

FIRST, SECOND, THIRD = (f"{number:016x}" for number in (1, 2, 3))


def promote(model: RegisteredModel, name: str, run: Path) -> None:
    shutil.copytree(run, model.run_path(name))
    facts = {"decision": "promoted", "reasons": ("a test",), "decided_at": current_time()}
    model.promote(ModelMetadata(task="captcha", run=name, champion=name, **facts))


@pytest.fixture
def model(tmp_path: Path, captcha_run: Path) -> RegisteredModel:
    store: Store = new_store(tmp_path / "store")
    registered = RegisteredModel(store, "labels")
    promote(registered, FIRST, captcha_run)
    return registered


@pytest.fixture
def champion(model: RegisteredModel) -> Iterator[Client]:
    with start(Serve.parse({"runs": [model.root], "port": 0}), ServingLimits(champion_seconds=0.05)) as server:
        yield Client(server["url"])


def test_no_request_is_lost_while_a_champion_is_replaced(
    model: RegisteredModel, champion: Client, captcha_run: Path, captchas: Any
) -> None:
    (listed,) = champion.send("v1/models").json["models"]
    assert (listed["name"], listed["run"], listed["registered"]) == ("labels", FIRST, True)
    replaced = False

    def ask_until_replaced(number: int) -> list[Any]:
        answers = []
        while not answers or not replaced or answers[-1].json["run"] == FIRST:
            answers.append(champion.send("v1/recognize", captchas[number].data))
        return answers

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask_until_replaced, number) for number in range(4)]
        promote(model, SECOND, captcha_run)
        replaced = True
        answers = [answer for one in asked for answer in one.result()]
    assert {answer.status for answer in answers} == {200}
    assert {answer.json["run"] for answer in answers} == {FIRST, SECOND}
    assert champion.metric("capt_champion_swaps_total", model="labels") == 1


def test_a_champion_that_cannot_be_loaded_leaves_the_earlier_one(
    model: RegisteredModel, champion: Client, captchas: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{}")
    promote(model, THIRD, tmp_path / "broken")
    deadline = time.monotonic() + 30
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.02)
    assert champion.send("v1/recognize", captchas[0].data).json["run"] == FIRST
    time.sleep(0.2)
    assert len(caplog.records) == 1
