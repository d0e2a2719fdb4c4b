"""A captioner, a recognizer, and a server of both that tests only read."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import capt
from features.io.locks import wait_for_lock
from schemas.options.serving import Serve
from tests.trainer.conftest import captchas, shown, squares, store, words_run, words_store  # noqa: F401
from tests.workflows.serving.http_client import Client
from workflows.serving.command import RunningServer, serve

SIZES = {"units": 32, "embedding_dim": 16, "attention_dim": 16, "projection_dim": 16, "output_dim": 32}


@pytest.fixture(scope="session")
def caption_run(store, tmp_path_factory) -> Path:  # noqa: F811
    """A captioner with attention."""
    own = tmp_path_factory.mktemp("served") / "soft"
    # Two workers of the tests train it once.
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "served-captioner"
    with wait_for_lock(shared.with_suffix(".lock")):
        if not shared.exists():
            options = {**SIZES, "batch_size": 16, "learning_rate": 0.006, "num_sample_captions": 0}
            capt.train_captioner(store=store.path, run_dir=shared, epochs=2, hyperparameters=options, verbose=0)
    return Path(shutil.copytree(shared, own))


@pytest.fixture(scope="session")
def captcha_run(words_run, tmp_path_factory) -> Path:  # noqa: F811
    """A recognizer."""
    return Path(shutil.copytree(words_run[0], tmp_path_factory.mktemp("served") / "captcha"))


@pytest.fixture(scope="session")
def server(caption_run: Path, captcha_run: Path) -> Iterator[RunningServer]:
    with serve(Serve.parse({"runs": [caption_run, captcha_run], "port": 0})) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Client:
    return Client(server["url"])
