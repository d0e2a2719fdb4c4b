"""If a part of the cluster is killed during a job, the runner repeats the lost work units."""

import os
import signal
import time

import pytest

from tests.distributed.processes import Process

pytestmark = pytest.mark.distributed
SHARDS = 32


@pytest.fixture
def job(inputs):
    """Slow enough to be caught in the middle."""
    return inputs.features(SHARDS, side=448)


@pytest.fixture
def begun(flink, job, tmp_path):
    """The job as a process of its own, once some of its units are done and others are not; its store."""
    store = tmp_path / "store"
    process = Process("job", job.command(store, flink.options), tmp_path)
    process.wait_for(lambda: 2 <= len(finished(store)) < SHARDS // 2, 300)
    yield process, store
    process.stop()


def finished(store):
    """The results of the extraction's units; a hashing's plan lies in a directory of its run."""
    return [path for path in store.glob("work/*/done/*.json") if not path.parts[-3].startswith("run-")]


def test_a_lost_task_manager_repeats_only_its_unfinished_units(flink, job, begun, compare):
    process, store = begun
    started, cluster = time.monotonic(), flink.cluster
    cluster.task_managers[0].kill()
    assert process.wait(400) == 0, process.tail()
    cluster.add_task_manager()
    compare(f"{flink.name}, one killed", job, store, started)
    assert any(map(cluster.failures, cluster.jobs()))


def test_a_lost_sdk_worker_repeats_only_its_unfinished_units(flink, job, begun, compare):
    process, store = begun
    started, cluster = time.monotonic(), flink.cluster
    before = sum(map(cluster.failures, cluster.jobs()))
    # The newest works for this job; of the job before, which hashed, one may be kept that does nothing.
    os.kill(max(cluster.pool.process.children()), signal.SIGKILL)
    assert process.wait(400) == 0, process.tail()
    assert sum(map(cluster.failures, cluster.jobs())) > before
    compare(f"{flink.name}, an SDK worker killed", job, store, started)


def test_a_launcher_that_is_killed_is_finished_by_the_next(flink, job, begun, compare):
    process, store = begun
    process.kill()
    started = time.monotonic()
    again = job.run(store, flink.options)
    assert again["failed"] == 0
    compare(f"{flink.name}, the launcher killed", job, store, started)
