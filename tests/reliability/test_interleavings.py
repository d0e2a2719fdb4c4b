"""Whatever order the requests of jobs on one store come in, and whoever is killed, nothing live is deleted or lost.

`make test-interleavings EXAMPLES=20000` searches longer.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import capt
from features.io.atomic_files import hash_file
from features.store import Store, create_store
from features.store.commit_log import CommitLog
from features.store.compaction import compact_table
from features.store.garbage_collection import _Collector
from features.store.layout import MODELS, table_roots
from features.store.leases import current_leases, hold_snapshot, lease, table_name
from features.store.verification import verify
from schemas.errors import StoreError
from schemas.manifests import Manifest
from tests.features.buckets import BUCKET, bucket
from tests.features.store.stores import (
    add_captions,
    add_dataset,
    add_features,
    expected_features,
    feature_config,
    features_of,
    keys_of,
)
from tests.reliability.interleaving import Job, Template, World
from tests.workflows.test_model_registry import facts, promote, put_run, run_name
from workflows.model_registry import KEPT, RegisteredModel

CONFIG = feature_config()
DAY = 86_400
ALL, SOME, FEW = range(10), range(6), range(3)

FAST, SLOW = 12, {"directory": 250, "bucket": 80}
EXAMPLES = int(os.environ.get("EXAMPLES", "0"))


def build(world: World) -> None:
    """A store in which much was replaced three days ago, so that it may be collected, and may come back."""
    store = world.store
    prepare(store, "photos", SOME)
    prepare(store, "photos", ALL)
    prepare(store, "photos", SOME)
    prepare(store, "old", FEW)
    add_captions(store, "old", FEW)
    compact_table(store, CONFIG.fingerprint)
    capt.store_drop(store=str(store.path), dataset="old")
    model = RegisteredModel(store, "shapes")
    for number in range(1, KEPT + 3):
        promote(model, number)
    put_run(model, KEPT + 3)
    model.decide(facts("rejected", KEPT + 3, None))
    world.pass_time(3 * DAY)


# === Jobs ===


def prepare(store: Store, name: str, numbers: range) -> tuple[Path, Manifest]:
    """Adds the rows that the table lacks and commits the dataset, as `capt prepare features` does; the commit."""
    root, dataset = store.feature_table_root(CONFIG), store.dataset_root(name)
    with lease(store.path, "prepare", {table_name(store.path, one): () for one in (root, dataset)}):
        tables = store.feature_tables()
        known = tables[0].lookup(keys_of(numbers)) if tables else np.full(len(numbers), -1)
        missing = [number for number, position in zip(numbers, known, strict=True) if position < 0]
        if missing:
            add_features(store, CONFIG, missing)
        return dataset, add_dataset(store, name, numbers)


def read(store: Store) -> None:
    """Reads a snapshot from the first row to the last."""
    with hold_snapshot(store.path, store.feature_tables) as tables:
        for table in tables:
            entries = [entry for manifest in table.manifests for entry in manifest.entries()]
            assert all(hash_file(table.root / entry.path) == entry.sha256 for entry in entries)
            assert table.rows == len(table.read(np.arange(table.rows)))


def check(store: Store) -> None:
    """Verifies the store."""
    found = verify(store.path)
    assert found.is_healthy, found


JOBS: dict[str, Callable[[Store], object]] = {
    "prepare all": lambda store: prepare(store, "photos", ALL),
    "prepare some": lambda store: prepare(store, "photos", SOME),
    "prepare old": lambda store: prepare(store, "old", FEW),
    "caption old": lambda store: (add_captions(store, "old", FEW), None)[1],
    "compact": lambda store: compact_table(store, CONFIG.fingerprint),
    "collect": lambda store: capt.store_gc(store=str(store.path)),
    "collect at once": lambda store: capt.store_gc(store=str(store.path), older_than="0s"),
    "drop": lambda store: capt.store_drop(store=str(store.path), dataset="photos"),
    "promote first": lambda store: capt.models_promote(store=str(store.path), run=run_name(1)),
    "promote rejected": lambda store: capt.models_promote(store=str(store.path), run=run_name(KEPT + 3)),
    "roll back": lambda store: capt.models_rollback(store=str(store.path)),
    "read": read,
    "verify": check,
}
# A run that was let go of may be deleted, and a champion may change, before the command is told.
_MAY_BE_REFUSED = ("promote first", "promote rejected", "roll back")


# === What must hold ===


def check_live(store: Store) -> None:
    """Checks that all is there that a live commit, a champion or a reader's lease references."""
    read_now = {name: set(some) for held in current_leases(store.path) for name, some in held.tables.items()}
    live_rows: set[bytes] = set()
    for root in table_roots(store.path):
        log_state = CommitLog(root).read_complete_state()
        pins = read_now.get(table_name(store.path, root), set())
        manifests = [*log_state.live, *(log_state.known[digest] for digest in pins)]
        for entry in (entry for manifest in manifests for entry in manifest.entries()):
            path = root / entry.path
            assert path.is_file(), f"{path} is gone"
            assert path.stat().st_size == entry.bytes
    table = next(iter(store.feature_tables()), None)
    for dataset in store.datasets():
        named = set(dataset.catalog()["key"].to_pylist())
        live_rows |= {bytes(key) for keys in table.key_blocks() for key in keys} if table else set()
        assert named <= live_rows, f"{dataset.name} names rows that the table has lost"
    if (store.path / MODELS / "shapes").is_dir():
        assert RegisteredModel(store, "shapes").champion is not None


def check_ended(store: Store, job: Job) -> None:
    """Checks that a job that has ended did what it said, or was refused for a reason."""
    if job.error:
        is_refused = isinstance(job.error, StoreError) and (job.name in _MAY_BE_REFUSED or job.was_suspended)
        if not is_refused:
            raise job.error
    if isinstance(job.result, tuple):
        root, manifest = job.result
        files = {one.files["catalog"].path for one in CommitLog(root).read_complete_state().known.values() if one.files}
        assert manifest.files["catalog"].path in files


# === The search ===


@dataclass(frozen=True)
class Step:
    """What happens next.

    Args:
        what: `run`, `kill`, `later` (the others' leases are renewed) or `suspend` (the job's leases run out).
        job: Which job it is about.
        count: How many requests the job makes.
    """

    message: str
    job: int
    count: int


STEPS = st.builds(
    Step,
    st.sampled_from(["run"] * 12 + ["kill", "later", "suspend"]),
    st.integers(0, 3),
    st.sampled_from([1, 2, 3, 5, 8, 13, 21, 34, 1000]),
)
COLLECTIONS = ["collect", "collect at once"]
NAMES = st.tuples(
    st.sampled_from(COLLECTIONS),
    st.sampled_from(sorted(JOBS)),
    st.sampled_from(sorted(JOBS)),
    st.sampled_from(sorted(JOBS)),
)


def take(world: World, step: Step) -> None:
    """Lets one step happen."""
    job = world.jobs[step.job % len(world.jobs)]
    if step.message == "run":
        job.step(step.count)
    elif step.message == "kill" and not job.is_done:
        job.kill()
    elif step.message in ("later", "suspend") and all(one.is_at_listing for one in world.jobs):
        world.pass_time(100 * step.count, job if step.message == "suspend" else None)


def finish(world: World) -> None:
    """Lets all jobs end; those that wait for a collection that was killed go on when its lease has run out."""
    for _ in range(20):
        for job in world.jobs:
            job.step(10_000 if job.location != "wait" else 3)
        if all(job.is_done for job in world.jobs):
            return
        world.pass_time(200)
    raise AssertionError(f"hanging: {[job.name for job in world.jobs if not job.is_done]}")


def explore(template: Template, names: tuple[str, ...], steps: list[Step]) -> None:
    """Runs jobs in one order of their requests and checks the store after each step."""
    with template.copied() as world:
        store = world.store
        for name in names:
            world.jobs.append(Job(name, lambda run=JOBS[name]: run(store)))  # type: ignore[misc]
        for step in steps:
            take(world, step)
            check_live(store)
        finish(world)
        check_live(store)
        for job in world.jobs:
            check_ended(store, job)
        world.pass_time(3 * DAY)
        capt.store_gc(store=str(store.path))
        check_live(store)
        check(store)


@pytest.fixture(scope="module", params=["directory", pytest.param("bucket", marks=pytest.mark.slow)])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("interleavings"), build, request.param)


def search(template: Template, examples: int, derandomize: bool) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[][1:0] or [Phase.generate],
    )
    @given(NAMES, st.lists(STEPS, min_size=3, max_size=24))
    def found(names: tuple[str, ...], steps: list[Step]) -> None:
        explore(template, names, steps)

    found()


def test_jobs_in_any_order_lose_nothing_live(template: Template) -> None:
    search(template, FAST, derandomize=True)


@pytest.mark.slow
def test_jobs_in_many_orders_lose_nothing_live(template: Template) -> None:
    search(template, EXAMPLES or SLOW[template.kind], derandomize=not EXAMPLES)


def test_a_real_server_keeps_what_is_live(tmp_path: Path) -> None:
    """A collection before S3's server that begins before a job on what it may delete, and ends after it."""
    with bucket("s3", tmp_path / "mirror"):
        store = create_store(f"s3://{BUCKET}/stores/interleaved")
        prepare(store, "photos", ALL)
        prepare(store, "photos", SOME)
        compact_table(store, CONFIG.fingerprint)
        alone = _Collector._with_lease

        def during(collector: _Collector, *arguments: Any) -> None:
            if CommitLog(store.dataset_root("photos")).last() < 3:
                prepare(store, "photos", ALL)
            alone(collector, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Collector, "_with_lease", during)
            capt.store_gc(store=str(store.path), older_than="0s")
        check_live(store)
        check(store)
        assert np.array_equal(features_of(store, CONFIG, ALL), expected_features(ALL))
