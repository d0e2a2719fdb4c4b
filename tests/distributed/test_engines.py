"""The same command commits the same bytes on every runner."""

import time

import pytest

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("number", range(3), ids=["features", "captions", "captcha"])
def test_every_engine_commits_the_local_runners_bytes(engine, inputs, compare, number, tmp_path):
    job, store, started = inputs.jobs[number], tmp_path / "store", time.monotonic()
    job.run(store, engine.options)
    compare(engine.name, job, store, started)


def test_an_option_that_the_engine_does_not_know_is_refused(engine, inputs, tmp_path):
    job = inputs.captions
    with pytest.raises(AssertionError, match=r"status 2\n.*'--parallelsim'"):
        job.run(tmp_path / "store", (*engine.options, "--parallelsim=2"))
