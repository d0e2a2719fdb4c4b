"""Implements `capt synth sample`: a seeded sample of a dataset's images, with their captions, as a small dataset.

images + annotations → files of the images → the images of smallest hash → OUT/images.zip, OUT/captions.jsonl

images.zip        the encoded images, unchanged, under their names in the annotations without `..`; `2/NAME` if a name
                  has two images
captions.jsonl    one line per image, of the dataset type `jsonl`; missing for the dataset type `folder`
sample.json       settings of the sample
"""

import contextlib
import hashlib
import json
import logging
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from features.inputs import FileReference
from features.io.atomic_files import write_directory
from features.io.file_trees import count_bytes
from features.io.locations import local_path
from features.store import Dataset
from features.text.record_fields import check_caption
from pipelines.datasets import open_source
from pipelines.datasets.base import CaptionEntry, DatasetReader
from pipelines.datasets.splits import Splitter
from pipelines.ingest.image_database import HASH_CACHE, ImageDatabase
from pipelines.ingest.job_database import JOB_DATABASE
from pipelines.ingest.list_inputs import list_inputs
from schemas.errors import CaptError, RecordError, UsageError
from schemas.options.data import SynthSample
from schemas.options.prepare import PrepareFeatures
from schemas.strict_json import parse_json
from schemas.table_config import compute_digest

IMAGES = "images.zip"
CAPTIONS = "captions.jsonl"

_SETTINGS = "sample.json"

_log = logging.getLogger("capt.synth")


def synth_sample(options: SynthSample) -> dict[str, Any]:
    """Writes a sample of a dataset's images and their captions. An equal sample is kept.

    The images have the smallest hashes of (seed, image ID), so a sample of a higher rate contains that of a lower one.

    Returns:
        `output`, `images` and `captions` (written), `unusable_captions` (captions of these images that are empty, too
        long or not valid text, and so left out), `found` (images of the dataset with a file), `splits` (images written
        by split) and `bytes`.

    Raises:
        UsageError: An option is invalid, or the images are URLs.
        CaptError: There are no images, or one cannot be read.
    """
    if not 0 < options.rate <= 1:
        raise UsageError(
            f"{options.rate} is not above 0 and at most 1", location="--rate", hint="Use 0.01, for example."
        )
    reader = open_source(options)
    out = local_path(options.output, "--output").absolute()
    with (
        tempfile.TemporaryDirectory(prefix="capt-sample-") as scratch,
        contextlib.closing(ImageDatabase(Path(scratch) / JOB_DATABASE, Path(scratch) / HASH_CACHE)) as database,
    ):
        found = _find_images(options, reader, database, Path(scratch))
        sample = _make_names_unique(database.list_located(max(1, round(options.rate * found))))
        captions, unusable = _read_captions(reader, database, {row["image_id"] for row in sample})
    if unusable:
        _log.warning("%d captions of the sampled images are not usable text and are left out.", unusable)
    settings = {
        "options": options.model_dump(mode="json", exclude={"output"}),
        "digest": compute_digest(
            [[row["file_name"], row["split"], _hash(row), captions.get(row["image_id"])] for row in sample]
        ),
    }
    write_directory(
        out,
        "this sample",
        is_same=lambda root: bool(parse_json((root / _SETTINGS).read_bytes()) == settings),
        write_into=lambda root: _write(root, sample, captions, settings),
    )
    splits = [row["split"] for row in sample]
    return {
        "output": str(out),
        "images": len(sample),
        "captions": sum(map(len, captions.values())),
        "unusable_captions": unusable,
        "found": found,
        "splits": {split: splits.count(split) for split in sorted(set(splits))},
        "bytes": count_bytes(out),
    }


def _find_images(options: SynthSample, reader: DatasetReader, database: ImageDatabase, scratch: Path) -> int:
    """Inserts the images, ranked by the hash of (seed, image ID). Returns the number of those with a file."""
    if reader.has_urls:
        hint = "Use --limit-images of `capt prepare`, which downloads only the selected images."
        raise UsageError(
            "images at URLs cannot be sampled", location=f"--dataset-type {options.dataset_type}", hint=hint
        )
    given = PrepareFeatures(
        store=str(scratch),
        dataset_type=options.dataset_type,
        images=options.images,
        annotations=options.annotations,
        seed=options.seed,
    )
    splitter = Splitter(own=True)
    list_inputs(database, reader, given, splitter, splitter, Dataset(scratch / "dataset", ()))
    found = database.count_located()
    if not found:
        location = ", ".join(options.images)
        raise CaptError("no image of the annotations is there", location=location, hint="Check --annotations.")
    return found


def _make_names_unique(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the images, each file under a unique name."""
    files: dict[str, tuple[str, str]] = {}
    sample = []
    for row in rows:
        own = row["location"], row["member"]
        inside = _remove_parents(row["file_name"])
        names = chain([inside], (f"{number}/{inside}" for number in count(2)))
        name = next(name for name in names if files.setdefault(name, own) == own)
        sample.append({**row, "file_name": name})
    return sample


def _remove_parents(name: str) -> str:
    """Returns a name in an archive that leads to no directory outside, without `..` and a leading slash."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def _read_captions(
    reader: DatasetReader, database: ImageDatabase, image_ids: set[str]
) -> tuple[dict[str, list[str]], int]:
    """Returns the usable captions by image ID, and the number of those that are not usable."""
    captions: dict[str, list[str]] = {}
    unusable = 0
    for entry in reader.read_captions():
        if not isinstance(entry, CaptionEntry):
            continue
        try:
            image_id = database.identities.look_up(entry.document, entry.image_id)
        except RecordError:
            continue
        if image_id not in image_ids:
            continue
        try:
            check_caption(entry.caption)
        except RecordError:
            unusable += 1
        else:
            captions.setdefault(image_id, []).append(entry.caption)
    return captions, unusable


def _write(
    root: Path, sample: Sequence[Mapping[str, Any]], captions: Mapping[str, list[str]], settings: Mapping[str, Any]
) -> None:
    names = set()
    with zipfile.ZipFile(root / IMAGES, "w") as archive:
        for row in sample:
            if row["file_name"] not in names:
                names.add(row["file_name"])
                # A fixed time, so that equal samples have equal bytes.
                archive.writestr(zipfile.ZipInfo(row["file_name"]), _read(row))
    if captions:
        lines = (
            {"image": row["file_name"], "captions": captions.get(row["image_id"], []), "split": row["split"]}
            for row in sample
        )
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines if line["captions"])
        (root / CAPTIONS).write_text(text, encoding="utf-8")
    (root / _SETTINGS).write_text(json.dumps(settings))


def _hash(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(_read(row)).hexdigest()


def _read(row: Mapping[str, Any]) -> bytes:
    reference = FileReference(row["location"], row["member"])
    try:
        return reference.read()
    except RecordError as error:
        raise CaptError(f"the image cannot be read: {error.reason}", location=reference.label) from None
