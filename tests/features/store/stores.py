"""Builds small stores for tests; a number determines each row."""

import contextlib
import hashlib
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.io.atomic_files import describe_file, hash_file, put_if_absent, replace_atomically, temporary_path, write
from features.store import Store, create_store, storage_dtypes
from features.store.commit_log import CommitLog
from features.store.leases import lease, table_name
from features.store.shards import ShardWriter, compute_commit_name, find_shard
from schemas.choices import Compression, Format, StorageDtype
from schemas.manifests import CaptionMetadata, DatasetMetadata, FeatureMetadata, FileEntry, Manifest, Shard
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig, canonical_json
from schemas.tables import CAPTIONS, CATALOG, FAILURES

SHAPE = (4, 16)
NETWORK = b"a frozen network"
NETWORK_SHA = hashlib.sha256(NETWORK).hexdigest()


def new_store(path: Path) -> Store:
    """An empty store."""
    return create_store(path)


def feature_config(
    file_format: Format = "parquet", dtype: StorageDtype = "float16", compression: Compression = "none"
) -> FeatureTableConfig:
    """Returns the config of a feature table of shape `SHAPE`."""
    return FeatureTableConfig(
        extractor="inception_v3",
        weights="random:0",
        layer="mixed10",
        height=75,
        width=75,
        precision="float32",
        dtype=dtype,
        format=file_format,
        compression=compression,
    )


def key_of(number: int) -> bytes:
    """The content key of the image of that number."""
    return hashlib.sha256(str(number).encode()).digest()


def keys_of(numbers: Iterable[int]) -> Any:
    """The content keys of images as uint8 [N, 32]."""
    return np.frombuffer(b"".join(map(key_of, numbers)), np.uint8).reshape(-1, 32)


def values_of(number: int, dtype: StorageDtype = "float16") -> storage_dtypes.StoredColumns:
    """What an extractor would have made of the image of that number."""
    return storage_dtypes.encode(np.random.default_rng(number).standard_normal(SHAPE, dtype=np.float32), dtype)


def add_features(
    store: Store,
    table_config: FeatureTableConfig,
    numbers: Iterable[int],
    *,
    shards: int = 1,
    failed: Sequence[int] = (),
    numerics: str = "cpu-avx2",
) -> Manifest:
    """Commit the rows of images, as one run of a job does."""
    with preparing(store, store.feature_table_root(table_config)) as root:
        return _add_features(store, table_config, root, numbers, shards, failed, numerics)


def _add_features(
    store: Store,
    table_config: FeatureTableConfig,
    root: Path,
    numbers: Iterable[int],
    shards: int,
    failed: Sequence[int],
    numerics: str,
) -> Manifest:
    write(store.extractor_path(NETWORK_SHA), NETWORK)
    put_if_absent(root / "network.json", canonical_json({"network": NETWORK_SHA, "shape": list(SHAPE)}))
    planned = sorted((key_of(number), number) for number in numbers)
    digest = hashlib.sha256(b"".join(key for key, _ in planned)).hexdigest()
    commit = compute_commit_name(table_config.fingerprint, NETWORK_SHA, shards, digest)
    written = []
    for prefix, some in groupby(planned, lambda pair: find_shard(pair[0], shards)):
        writer = ShardWriter(root, commit, table_config.table(SHAPE), table_config.format, prefix, shards)
        for key, number in some:
            writer.append({"key": key, **values_of(number, table_config.dtype)})
        written.append(shard_of_writer(writer))
    manifest = Manifest(
        table=table_config.fingerprint,
        shards=tuple(written),
        files={"failures": _failures(root, failed)} if failed else {},
        facts=FeatureMetadata(shape=SHAPE, network=NETWORK_SHA, numerics=numerics, toolchain={"pillow": "12"}),
    )
    CommitLog(root).append(manifest)
    return manifest


def add_dataset(store: Store, name: str, numbers: Iterable[int]) -> Manifest:
    """Commit a dataset of these images, in place of what it was."""
    with preparing(store, store.dataset_root(name)) as root:
        return _add_dataset(root, sorted(numbers, key=str))


def _add_dataset(root: Path, numbers: Sequence[int]) -> Manifest:
    columns = {
        "image_id": [str(number) for number in numbers],
        "key": [key_of(number) for number in numbers],
        "split": ["train"] * len(numbers),
        "location": ["/images"] * len(numbers),
        "member": [f"{number}.jpg" for number in numbers],
        "bytes": [1000] * len(numbers),
    }
    entry = _named(root, "catalog", pa.Table.from_pydict(columns, schema=CATALOG.arrow_schema()))
    log = CommitLog(root)
    manifest = Manifest(
        table=root.name,
        replaces=tuple(live.digest for live in log.live()),
        files={"catalog": entry},
        facts=DatasetMetadata(source="folder", images={"train": len(numbers)}),
    )
    log.append(manifest)
    return manifest


def add_captions(store: Store, dataset: str, numbers: Iterable[int]) -> Manifest:
    """Commit a table of captions, with files in the places of a vocabulary and a transform."""
    table_config = CaptionTableConfig(dataset=dataset, vocabulary=f"train:{'0' * 64}")
    with preparing(store, store.caption_table_root(table_config)) as root:
        return _add_captions(table_config, root, sorted((key_of(number), number) for number in numbers))


def _add_captions(table_config: CaptionTableConfig, root: Path, rows: Sequence[tuple[bytes, int]]) -> Manifest:
    dataset = table_config.dataset
    writer = ShardWriter(root, "0123456789abcdef", CAPTIONS, "parquet", 0, 1)
    for key, number in rows:
        ids = {"dataset": dataset, "image_id": str(number), "caption_id": str(number)}
        text = {"split": "train", "caption": f"caption {number}", "tokens": [2, 4 + number, 3]}
        writer.append({"key": key, **ids, **text})
    files = {}
    roles = {"vocabulary": "transform/transform_fn/assets/vocabulary.txt", "transform/graph": "transform/graph"}
    for role, place in roles.items():
        path = root / "0123456789abcdef" / place
        write(path, f"contents of {role}\n".encode())
        files[role] = describe_file(path, root)
    facts = CaptionMetadata(
        inputs="0" * 64,
        words=5,
        captions={"train": len(rows)},
        tokens={"train": 3 * len(rows)},
        unknown={},
        truncated=0,
        longest=3,
    )
    manifest = Manifest(table=table_config.fingerprint, shards=(shard_of_writer(writer),), files=files, facts=facts)
    CommitLog(root).append(manifest)
    return manifest


@contextlib.contextmanager
def preparing(store: Store, root: Path) -> Iterator[Path]:
    """The directory of a table, with the lease of a job that adds to it."""
    with lease(store.path, "prepare", {table_name(store.path, root): ()}):
        yield root


def shard_of_writer(writer: ShardWriter) -> Shard:
    """The shard that a writer with rows closes to."""
    shard = writer.close()
    assert shard is not None
    return shard


def contents(root: Path) -> dict[str, str]:
    """The SHA-256 of every file of the table's live commits, by path within the table."""
    named = {entry.path for manifest in CommitLog(root).live() for entry in manifest.entries()}
    return {path: hash_file(root / path) for path in sorted(named)}


def features_of(store: Store, table_config: FeatureTableConfig, numbers: Sequence[int]) -> Any:
    """The features of images as a reader sees them; KeyError where one has none."""
    table = store.feature_table(table_config.fingerprint)
    positions = table.lookup(keys_of(numbers))
    if (positions < 0).any():
        raise KeyError([number for number, position in zip(numbers, positions, strict=True) if position < 0])
    return table.read(positions)


def expected_features(numbers: Sequence[int], dtype: StorageDtype = "float16") -> Any:
    """What `features_of` must give."""
    return np.stack([storage_dtypes.decode(values_of(number, dtype)) for number in numbers])


def timed(function: Callable[..., object], *arguments: Any) -> float:
    """How many seconds a process of its own takes for a function, from the call to its return."""
    process, news = _process(function, *arguments)
    started = time.monotonic()
    news.recv()
    seconds = time.monotonic() - started
    process.join()
    return seconds


def killed(seed: int, within: float, function: Callable[..., object], *arguments: Any) -> bool:
    """Run a function in a process of its own and kill it at a random moment; whether that came before its return."""
    process, news = _process(function, *arguments)
    time.sleep(random.Random(seed).uniform(0, within))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    try:
        news.recv()
    except EOFError:
        return True
    return False


def _process(function: Callable[..., object], *arguments: Any) -> tuple[Any, Connection]:
    """A process that calls the function now, and where it tells that the function has returned."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__, __name__])
    news, teller = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(teller, function, *arguments))
    process.start()
    teller.close()
    news.recv()
    return process, news


def _call(teller: Connection, function: Callable[..., object], *arguments: Any) -> None:
    teller.send("called")
    function(*arguments)
    teller.send("returned")


def _failures(root: Path, numbers: Sequence[int]) -> FileEntry:
    keys = sorted(map(key_of, numbers))
    rows = [{"key": key, "stage": "decode", "reason": "truncated", "detail": key.hex()[:4]} for key in keys]
    return _named(root, "failures", pa.Table.from_pylist(rows, schema=FAILURES.arrow_schema()))


def _named(root: Path, stem: str, rows: pa.Table) -> FileEntry:
    root.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(root / stem)
    with pq.ParquetWriter(temporary, rows.schema) as writer:
        writer.write_table(rows)
    path = root / hash_file(temporary)[:SHORT_FINGERPRINT] / f"{stem}.parquet"
    path.parent.mkdir(exist_ok=True)
    replace_atomically(temporary, path)
    return describe_file(path, root)
