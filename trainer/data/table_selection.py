"""Selects the tables of a store that a run is trained on: the requested ones, or the only ones that fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.store import CaptionTable, Dataset, FeatureTable, Store
from schemas.errors import StoreError
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT

_PREPARE_CAPTIONS = "`capt prepare features` and `capt prepare captions` with the same --dataset-name"


class FeatureSource(Protocol):
    """The part of `features.store.FeatureTable` that batches are read from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one image."""

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Returns the positions of content hashes uint8 [N, 32]; −1 for a missing one."""

    def ensure_local(self, positions: NDArray[np.int64]) -> None:
        """Downloads the shards of these positions if the store is in a bucket."""

    def read(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Reads the features [N, *shape] at these positions."""


class InputCheck(Protocol):
    """Checks which feature shapes a model reads."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns whether the model reads features of this shape."""

    def check_shape(self, shape: tuple[int, ...], location: str) -> None:
        """Raises UsageError if the model does not read features of this shape."""


@dataclass(frozen=True)
class TrainingTables:
    """The tables that a run is trained on.

    Args:
        datasets: The datasets, which map image IDs to content hashes.
        features: The features of all images.
        caption_tables: The captions of each dataset, with equal vocabularies; empty for other tasks.
    """

    datasets: tuple[Dataset, ...]
    features: FeatureTable
    caption_tables: tuple[CaptionTable, ...] = ()

    def __iter__(self) -> Iterator[Dataset | CaptionTable | FeatureTable]:
        return iter((*self.datasets, *self.caption_tables, self.features))


def select_tables(
    store: Store,
    inputs: InputCheck,
    datasets: Sequence[str] = (),
    features: str | None = None,
    captions: str | None = None,
) -> TrainingTables:
    """Selects the tables that a captioner is trained on.

    Args:
        store: The store.
        inputs: The model, which reads features of some shapes only.
        datasets: Names of the datasets. If empty, the store must contain exactly one dataset with captions.
        features: Fingerprint of the feature table, or its beginning. If None, exactly one feature table must fit.
        captions: Fingerprint of the caption table, or its beginning. If None, each dataset must have exactly one
            caption table.

    Raises:
        StoreError: No table fits, or several do. The message lists the candidates and names the option.
        UsageError: The model does not read the requested feature table.
    """
    tables = store.caption_tables()
    captioned = {table.table_config.dataset for table in tables}
    chosen = _select_datasets(store, datasets, lambda one: one.name in captioned, "captions", _PREPARE_CAPTIONS)
    caption_tables = _select_caption_tables(store, tables, chosen, captions)
    return TrainingTables(tuple(chosen), _select_features(store, inputs, chosen, features), tuple(caption_tables))


def select_labelled_tables(
    store: Store, inputs: InputCheck, datasets: Sequence[str] = (), features: str | None = None
) -> TrainingTables:
    """Selects the tables of labeled images; arguments and errors as in `select_tables`."""
    command = "capt prepare captcha"
    chosen = _select_datasets(store, datasets, lambda one: len(one.labels()) > 0, "labels", f"`{command}`")
    return TrainingTables(tuple(chosen), _select_features(store, inputs, chosen, features, command))


def _select_datasets(store: Store, names: Sequence[str], is_usable: Any, records: str, command: str) -> list[Dataset]:
    if names:
        return [store.dataset(name) for name in dict.fromkeys(names)]
    fitting = [dataset for dataset in store.datasets() if is_usable(dataset)]
    if len(fitting) == 1:
        return fitting
    if fitting:
        found = ", ".join(dataset.name for dataset in fitting)
        raise StoreError(
            f"several datasets have {records}: {found}",
            location=str(store.path),
            hint="Choose one with --dataset NAME.",
        )
    raise StoreError(f"no dataset has images and {records}", location=str(store.path), hint=f"Run {command}.")


def _select_caption_tables(
    store: Store, tables: list[CaptionTable], datasets: list[Dataset], prefix: str | None
) -> list[CaptionTable]:
    asked = store.caption_table(prefix) if prefix else None
    if asked and asked.table_config.dataset not in [dataset.name for dataset in datasets]:
        raise StoreError(
            f"the caption table {asked.fingerprint[:SHORT_FINGERPRINT]} belongs to {asked.table_config.dataset}",
            location=str(store.path),
            hint=f"Add --dataset {asked.table_config.dataset}, or choose another --caption-table.",
        )
    chosen = [_select_caption_table(store, tables, dataset.name, asked) for dataset in datasets]
    vocabulary = chosen[0].vocabulary()
    for table in chosen[1:]:
        if table.vocabulary() != vocabulary:
            raise StoreError(
                f"{table.table_config.dataset} and {chosen[0].table_config.dataset} have different vocabularies",
                location=str(store.path),
                hint=f"Run `capt prepare captions --dataset-name {table.table_config.dataset} "
                f"--vocab-from {chosen[0].fingerprint[:SHORT_FINGERPRINT]}`.",
            )
    return chosen


def _select_caption_table(
    store: Store, tables: list[CaptionTable], dataset: str, asked: CaptionTable | None
) -> CaptionTable:
    if asked and asked.table_config.dataset == dataset:
        return asked
    fitting = [table for table in tables if table.table_config.dataset == dataset]
    if asked and len(fitting) > 1:
        fitting = [table for table in fitting if table.vocabulary() == asked.vocabulary()] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise StoreError(
            f"the dataset {dataset} has no captions",
            location=str(store.path),
            hint=f"Run `capt prepare captions --dataset-name {dataset}`.",
        )
    raise StoreError(
        f"several caption tables fit: {'; '.join(map(_describe_captions, fitting))}",
        location=str(store.path),
        hint="Choose one with --caption-table FINGERPRINT.",
    )


def _select_features(
    store: Store,
    inputs: InputCheck,
    datasets: list[Dataset],
    prefix: str | None,
    command: str = "capt prepare features",
) -> FeatureTable:
    if prefix:
        table = store.feature_table(prefix)
        inputs.check_shape(table.shape, table.fingerprint[:SHORT_FINGERPRINT])
        return table
    keys = np.concatenate([stack_keys(dataset.catalog()) for dataset in datasets])
    candidates = [table for table in store.feature_tables() if (table.lookup(keys) >= 0).any()]
    fitting = [table for table in candidates if inputs.fits(table.shape)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise StoreError(
            f"several feature tables fit: {'; '.join(map(_describe_features, fitting))}",
            location=str(store.path),
            hint="Choose one with --feature-table FINGERPRINT.",
        )
    for table in candidates:
        inputs.check_shape(table.shape, table.fingerprint[:SHORT_FINGERPRINT])
    raise StoreError(
        f"no feature table contains images of {', '.join(dataset.name for dataset in datasets)}",
        location=str(store.path),
        hint=f"Run `{command} --dataset-name {datasets[0].name}`.",
    )


def _describe_features(table: FeatureTable) -> str:
    config = table.table_config
    shape = "×".join(map(str, table.shape))
    extractor = f"{config.extractor} {config.weights[:20]} {config.layer} {shape} {config.precision} {config.dtype}"
    return f"{table.fingerprint[:SHORT_FINGERPRINT]} ({extractor}, {table.rows} images)"


def _describe_captions(table: CaptionTable) -> str:
    config = table.table_config
    return (
        f"{table.fingerprint[:SHORT_FINGERPRINT]} "
        f"({config.dataset}, {config.standardizer}, {len(table.vocabulary())} tokens)"
    )
