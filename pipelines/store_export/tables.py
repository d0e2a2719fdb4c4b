"""Selects the tables of a store that an export reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from features.store import CaptionTable, Dataset, FeatureTable, Store
from features.store.caption_table import check_file_names
from features.store.snapshot import TableSnapshot
from schemas.errors import StoreError, UsageError
from schemas.options.store import StoreExport
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT

Found = TypeVar("Found", Dataset, FeatureTable, CaptionTable)


@dataclass(frozen=True)
class ExportTables:
    """A dataset, the features of its images, and its captions if they are exported."""

    dataset: Dataset
    features: FeatureTable
    captions: CaptionTable | None

    def __iter__(self) -> Iterator[TableSnapshot[Any]]:
        yield self.dataset
        yield self.features
        if self.captions:
            yield self.captions


def select_tables(store: Store, options: StoreExport) -> ExportTables:
    """Selects the tables that the options name, or else the only ones that fit.

    Raises:
        UsageError: The options contradict each other.
        StoreError: A table does not exist, or several tables match, or captions belong to other images.
    """
    if options.without_captions and options.caption_table:
        raise UsageError("--without-captions excludes it", location="--caption-table", hint="Omit one of the two.")
    location = str(store.path)
    if options.dataset:
        dataset = store.dataset(options.dataset)
    else:
        dataset = _get_only(store.datasets(), location, "dataset", "--dataset NAME", "the store has no dataset")
    features = _select_features(store, dataset, options.feature_table)
    is_plain = options.without_captions or bool(options.aligned_with)
    captions = None if is_plain else _select_captions(store, dataset, options.caption_table)
    if captions and (len(captions.file_names()) or len(dataset.file_names())):
        check_file_names(captions, _read_ids(captions), dataset, _read_ids(dataset))
    return ExportTables(dataset, features, captions)


def _read_ids(table: CaptionTable | Dataset) -> pa.Table:
    """Returns the column of image IDs, without the rest of the rows in memory."""
    ids = [batch["image_id"] for batch in table.record_batches()]
    return pa.table({"image_id": pa.chunked_array(ids, pa.string())})


def _select_features(store: Store, dataset: Dataset, prefix: str | None) -> FeatureTable:
    if prefix:
        return store.feature_table(prefix)
    fitting = [table for table in store.feature_tables() if _has_features(table, dataset)]
    problem = f"no feature table contains images of {dataset.name}"
    return _get_only(fitting, str(store.path), "feature table", "--feature-table FINGERPRINT", problem)


def _has_features(table: FeatureTable, dataset: Dataset) -> bool:
    return any((table.lookup(stack_keys(batch)) >= 0).any() for batch in dataset.record_batches())


def _select_captions(store: Store, dataset: Dataset, prefix: str | None) -> CaptionTable | None:
    if prefix:
        table = store.caption_table(prefix)
        if table.table_config.dataset != dataset.name:
            message = f"the caption table contains captions of {table.table_config.dataset}, not of {dataset.name}"
            raise StoreError(message, location=str(store.path), hint="Choose another --caption-table or --dataset.")
        return table
    fitting = [table for table in store.caption_tables() if table.table_config.dataset == dataset.name]
    if not fitting:
        return None
    return _get_only(fitting, str(store.path), "caption table", "--caption-table FINGERPRINT")


def _get_only(fitting: Sequence[Found], location: str, noun: str, option: str, none: str = "") -> Found:
    """Returns the only candidate; StoreError with the text `none` if there are none, or if there are several."""
    if not fitting:
        raise StoreError(none, location=location, hint="Run `capt prepare features`.")
    if len(fitting) > 1:
        names = ", ".join(
            one.name if isinstance(one, Dataset) else one.fingerprint[:SHORT_FINGERPRINT] for one in fitting
        )
        raise StoreError(f"several {noun}s fit: {names}", location=location, hint=f"Choose one with {option}.")
    return fitting[0]
