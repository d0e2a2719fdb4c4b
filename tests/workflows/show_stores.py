"""Stores for the commands that show one, committed piece by piece without a model or an engine."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from features.inputs import FileReference
from features.io.atomic_files import atomic_write, describe_file, write
from features.store import Store
from features.store.commit_log import CommitLog
from features.store.shards import ShardWriter, find_shard
from features.text.caption_keys import compute_caption_key
from features.text.vocabulary import identify_given_vocabulary, write_vocabulary
from schemas.manifests import CaptionMetadata, DatasetMetadata, FeatureMetadata, FileEntry, Manifest, Shard
from schemas.records import Row, to_arrow
from schemas.table_config import END, SPECIAL_TOKENS, START, UNKNOWN, CaptionTableConfig, FeatureTableConfig
from schemas.tables import CAPTIONS, CATALOG, FAILURES, LABELS, REPORT, Table

WORDS = (*SPECIAL_TOKENS, "a", "dog", "runs", "sleeps")
SHAPE = (4, 8)
SHARDS = 2


@dataclass(frozen=True)
class Photo:
    """An image of a dataset, and where it lies."""

    image_id: str
    data: bytes
    reference: FileReference
    split: str = "train"
    captions: tuple[str, ...] = ()
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", hashlib.sha256(self.data).digest())


def picture(seed: int) -> bytes:
    """An encoded image; no two seeds give the same."""
    file = BytesIO()
    Image.new("RGB", (64, 48), (seed % 256, seed // 256 % 256, 90)).save(file, "PNG")
    return file.getvalue()


def photo(
    directory: Path, number: int, split: str = "train", captions: Sequence[str] = (), *, seed: int | None = None
) -> Photo:
    """A file `number.png`, written into a directory; `seed` decides its content, else the number does."""
    directory.mkdir(parents=True, exist_ok=True)
    data, path = picture(number if seed is None else seed), directory / f"{number}.png"
    path.write_bytes(data)
    return Photo(str(number), data, FileReference(str(path)), split, tuple(captions))


def add_dataset(
    store: Store, photos: Sequence[Photo], name: str = "pets", labels: Mapping[str, str] | None = None
) -> None:
    """Commit the photos as a dataset, in place of what it was; `labels` by image ID."""
    root = store.dataset_root(name)
    rows = [
        {
            "image_id": photo.image_id,
            "key": photo.key,
            "split": photo.split,
            "location": photo.reference.location,
            "member": photo.reference.member,
            "bytes": len(photo.data),
        }
        for photo in sorted(photos, key=lambda photo: photo.image_id)
    ]
    commit = len(CommitLog(root).entries())
    files = {"catalog": _parquet(root, f"{commit}/catalog", CATALOG, rows)}
    if labels:
        words = [{"image_id": image_id, "word": word} for image_id, word in sorted(labels.items())]
        files["labels"] = _parquet(root, f"{commit}/labels", LABELS, words)
    facts = DatasetMetadata(source="folder", images=Counter(photo.split for photo in photos))
    replaces = tuple(manifest.digest for manifest in CommitLog(root).live())
    CommitLog(root).append(Manifest(table=name, replaces=replaces, files=files, facts=facts))


def add_features(
    store: Store,
    keys: Sequence[bytes],
    *,
    weights: str = "random:7",
    numerics: str = "cpu-avx2",
    toolchain: Mapping[str, str] | None = None,
    failures: Mapping[bytes, tuple[str, str, str]] | None = None,
) -> str:
    """Commit a row for each key, and remembered failures; the table's fingerprint."""
    table_config = FeatureTableConfig(
        extractor="inception_v3", weights=weights, layer="mixed10", height=299, width=299, precision="float32"
    )
    root, table = store.feature_table_root(table_config), table_config.table(SHAPE)
    commit = str(len(CommitLog(root).entries()))
    rows = [{"key": key, "value": np.full(SHAPE, key[0], np.float16)} for key in sorted(set(keys))]
    files = {}
    if failures:
        names = ("stage", "reason", "detail")
        failed = [{"key": key, **dict(zip(names, why, strict=True))} for key, why in sorted(failures.items())]
        files["failures"] = _parquet(root, f"{commit}/failures", FAILURES, failed)
    facts = FeatureMetadata(shape=SHAPE, network="0" * 64, numerics=numerics, toolchain=toolchain or {"keras": "3.15"})
    shards = _shards(root, commit, table, rows, table_config.format)
    CommitLog(root).append(Manifest(table=table_config.fingerprint, shards=shards, files=files, facts=facts))
    return table_config.fingerprint


def add_captions(
    store: Store, photos: Sequence[Photo], name: str = "pets", *, words: Sequence[str] = WORDS, max_length: int = 0
) -> str:
    """Commit the photos' captions, tokenized at spaces; the table's fingerprint."""
    table_config = CaptionTableConfig(dataset=name, vocabulary=identify_given_vocabulary(words), max_length=max_length)
    root = store.caption_table_root(table_config)
    rows = [_caption(name, photo, i, words) for photo in photos for i in range(len(photo.captions))]
    write_vocabulary(root / "0" / "transform" / "vocabulary.txt", words)
    write(root / "0" / "transform" / "graph.pb", b"a graph")
    files = {
        f"transform/{path.name}": describe_file(path, root) for path in sorted((root / "0" / "transform").glob("*"))
    }
    files["vocabulary"] = files["transform/vocabulary.txt"]
    shards = _shards(root, "0", CAPTIONS, sorted(rows, key=lambda row: row["key"]), table_config.format)
    manifest = Manifest(table=table_config.fingerprint, shards=shards, files=files, facts=_text_facts(rows, words))
    CommitLog(root).append(manifest)
    return table_config.fingerprint


def add_report(store: Store, rows: Sequence[Sequence[str]], name: str = "pets", run: str = "features") -> Path:
    """Leave the report of a run: record, status, stage, reason, detail of each record."""
    root = store.dataset_root(name)
    names = [column.name for column in REPORT.fields]
    kept = [dict(zip(names, (*row, "", "", "")[:5], strict=True)) for row in rows]
    number = len(list(root.glob("reports/*")))
    return root / _parquet(root, f"reports/{number}/{run}", REPORT, kept).path


def _caption(name: str, photo: Photo, number: int, words: Sequence[str]) -> dict[str, object]:
    caption = photo.captions[number]
    ids = [words.index(word) if word in words else UNKNOWN for word in caption.split()]
    return {
        "key": compute_caption_key(name, photo.image_id, str(number)),
        "dataset": name,
        "image_id": photo.image_id,
        "caption_id": str(number),
        "split": photo.split,
        "caption": caption,
        "tokens": [START, *ids, END],
    }


def _text_facts(rows: Sequence[Row], words: Sequence[str]) -> CaptionMetadata:
    captions, tokens, unknown = Counter(), Counter(), Counter()
    lengths: dict[str, Counter[int]] = {row["split"]: Counter() for row in rows}
    for row in rows:
        lengths[row["split"]][len(row["tokens"])] += 1
        captions[row["split"]] += 1
        tokens[row["split"]] += len(row["tokens"])
        unknown[row["split"]] += row["tokens"].count(UNKNOWN)
    longest = max(len(row["tokens"]) for row in rows)
    return CaptionMetadata(
        inputs="0" * 64,
        words=len(words),
        captions=captions,
        tokens=tokens,
        unknown=unknown,
        truncated=0,
        longest=longest,
        lengths=lengths,
    )


def _shards(root: Path, commit: str, table: Table, rows: Sequence[Row], file_format: str) -> tuple[Shard, ...]:
    writers = [ShardWriter(root, commit, table, file_format, number, SHARDS) for number in range(SHARDS)]
    for row in rows:
        writers[find_shard(row["key"], SHARDS)].append(row)
    return tuple(shard for shard in (writer.close() for writer in writers) if shard)


def _parquet(root: Path, name: str, table: Table, rows: Sequence[Row]) -> FileEntry:
    path = root / f"{name}.parquet"
    with atomic_write(path) as temporary:
        pq.write_table(to_arrow(table, rows), temporary)
    return describe_file(path, root)
