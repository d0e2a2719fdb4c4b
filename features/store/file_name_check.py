"""Checks that captions and a dataset mean the same image by an id."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.store.tables import CaptionTable, Dataset
from schemas.errors import StoreError
from schemas.table_config import SHORT_FINGERPRINT


def check_file_names(text: CaptionTable, captions: pa.Table, dataset: Dataset, catalog: pa.Table) -> None:
    """Refuses captions whose annotations name another file for an image than those of the dataset.

    Args:
        text: The captions' table.
        captions: Its rows, with the column `image_id`.
        dataset: The dataset.
        catalog: Its catalog.

    Raises:
        StoreError: An id names two files.
    """
    of_captions, of_dataset = text.file_names(), dataset.file_names()
    if not (len(of_captions) or len(of_dataset)):
        return
    shared = pc.unique(captions["image_id"])
    shared = shared.filter(pc.is_in(shared, value_set=catalog["image_id"].combine_chunks()))
    differing = list(_differing(shared, _named(shared, of_captions), _named(shared, of_dataset)))
    if not differing:
        return
    image_id, caption_file, image_file = differing[0]
    raise StoreError(
        f"the captions of {len(differing)} images belong to other images of the dataset {dataset.name}: image "
        f"{image_id} is {image_file} in the dataset and {caption_file} in the caption table",
        location=f"caption table {text.fingerprint[:SHORT_FINGERPRINT]}",
        hint="run `capt prepare features` and `capt prepare captions` with the same --annotations",
    )


def _named(image_ids: Any, names: pa.Table) -> Any:
    """The file that each id names; an id without a row names itself."""
    place = pc.index_in(image_ids, names["image_id"].combine_chunks())
    return pc.coalesce(pc.take(names["file_name"].combine_chunks(), place), image_ids)


def _differing(image_ids: Any, one: Any, other: Any) -> Iterator[tuple[str, str, str]]:
    """The ids that name two files. A path and its end are one file, `val2014/a.jpg` and `a.jpg`."""
    unlike = pc.not_equal(one, other)
    columns = (column.filter(unlike).to_pylist() for column in (image_ids, one, other))
    for image_id, first, second in zip(*columns, strict=True):
        longer, shorter = (first, second) if len(first) > len(second) else (second, first)
        if not longer.endswith(f"/{shorter}"):
            yield image_id, first, second
