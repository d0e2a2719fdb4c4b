"""The benchmark of `capt serve` sends every request once, and sees the captions of its images."""

import importlib
from pathlib import Path

import pytest

from schemas.options.serving import Serve
from tests.trainer.conftest import shown, squares, store  # noqa: F401
from tests.workflows.serving.conftest import caption_run  # noqa: F401
from trainer.runs.run import load_run
from workflows.serving.command import serve

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_request_is_answered(monkeypatch, caption_run, shown) -> None:  # noqa: F811
    monkeypatch.syspath_prepend(BENCHMARKS)
    serving = importlib.import_module("serving")
    load = serving.Load(tuple(picture.data for picture in shown[:3]), clients=2, requests=7)
    measured = serving.Measured([], [], [])
    with serve(Serve.parse({"runs": [caption_run], "port": 0})) as server:
        assert serving.make_work(server["url"], load, measured)() > 0
    captions = [caption.text for caption in load_run(caption_run).caption_many(load.images)]
    assert measured.texts == [captions[number % 3] for number in range(7)]
    assert (len(measured.seconds), len(measured.memory)) == (7, 1)
