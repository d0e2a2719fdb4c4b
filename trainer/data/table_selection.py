"""Selects the tables of a store that a run is trained on: the requested ones, or the only ones that fit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from features.store import CaptionTable, Dataset, FeatureTable, Store
from features.text.vocabulary import identify_given_vocabulary
from schemas.errors import StoreError, UsageError
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig
from trainer.models.model_specs import AnyInput, ModelSpec, PixelInput

AnyTable = TypeVar("AnyTable", Dataset, CaptionTable, FeatureTable)

_PREPARE_CAPTIONS = "`capt prepare features` and `capt prepare captions` with the same --dataset-name"


@dataclass(frozen=True)
class TrainingTables:
    """The tables that a run is trained on."""

    datasets: tuple[Dataset, ...]
    features: FeatureTable
    caption_tables: tuple[CaptionTable, ...] = ()  # one per dataset, with equal vocabularies; empty for other tasks

    def __iter__(self) -> Iterator[Dataset | CaptionTable | FeatureTable]:
        return iter((*self.datasets, *self.caption_tables, self.features))

    def name_image(self, dataset: str, image_id: str) -> str:
        """Returns the name of an image in results: its ID, with the dataset's name if there are several."""
        return f"{dataset}/{image_id}" if len(self.datasets) > 1 else image_id


def select_tables(
    store: Store,
    inputs: ModelSpec | PixelInput | AnyInput,
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


def select_held_out_tables(
    store: Store, trained: TrainingTables, datasets: Sequence[str] = (), captions: Sequence[str] = ()
) -> TrainingTables:
    """Selects the tables that a run is evaluated on.

    Args:
        store: The store.
        trained: The tables that the run was trained on. The run reads no other feature table.
        datasets: Names of the datasets. If empty, those of the training.
        captions: Fingerprints of caption tables with references, or their beginnings. The other datasets have that of
            the training, or must have exactly one.

    Raises:
        StoreError: A dataset or table is missing, or several caption tables of a dataset fit. The message names them.
        UsageError: A caption table belongs to none of the datasets, or the task has none.
    """
    chosen = [store.dataset(name) for name in dict.fromkeys(datasets)] or list(trained.datasets)
    if not trained.caption_tables:
        if captions:
            raise UsageError("the run has no captions", location="--caption-table", hint="Omit the option.")
        return replace(trained, datasets=tuple(chosen))
    own = {table.table_config.dataset: table for table in trained.caption_tables}
    asked = {table.table_config.dataset: table for table in map(store.caption_table, captions)}
    if len(asked) < len(captions):
        message = "two caption tables belong to one dataset"
        raise UsageError(message, location="--caption-table", hint="Name one caption table per dataset.")
    for dataset, table in asked.items():
        if dataset not in [one.name for one in chosen]:
            fingerprint = table.fingerprint[:SHORT_FINGERPRINT]
            message, hint = f"{fingerprint} belongs to the dataset {dataset}", f"Add --dataset {dataset}."
            raise UsageError(message, location="--caption-table", hint=hint)
    given, tables = {**own, **asked}, store.caption_tables()
    found = [given.get(one.name) or _select_caption_table(store, tables, one.name, None) for one in chosen]
    return replace(trained, datasets=tuple(chosen), caption_tables=tuple(found))


def select_labelled_tables(
    store: Store, inputs: PixelInput, datasets: Sequence[str] = (), features: str | None = None
) -> TrainingTables:
    """Selects the tables of labeled images; arguments and errors as in `select_tables`."""
    command = "capt prepare captcha"
    chosen = _select_datasets(store, datasets, lambda one: len(one.labels()) > 0, "labels", f"`{command}`")
    return TrainingTables(tuple(chosen), _select_features(store, inputs, chosen, features, command))


def _select_datasets(
    store: Store, names: Sequence[str], is_usable: Callable[[Dataset], bool], records: str, command: str
) -> list[Dataset]:
    if names:
        return [store.dataset(name) for name in dict.fromkeys(names)]
    fitting = [dataset for dataset in store.datasets() if is_usable(dataset)]
    only = _get_only(store, fitting, f"several datasets have {records}", ", ", lambda one: one.name, "--dataset NAME")
    if only is None:
        raise StoreError(f"no dataset has images and {records}", location=str(store.path), hint=f"Run {command}.")
    return [only]


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
                hint=f"Run `capt prepare captions … --dataset-name {table.table_config.dataset} "
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
        reusing = _reuse_vocabulary(asked, dataset)
        fitting = [table for table in fitting if table.table_config == reusing] or fitting

    def describe(table: CaptionTable) -> str:
        config, size = table.table_config, len(table.vocabulary())
        return f"{table.fingerprint[:SHORT_FINGERPRINT]} ({config.dataset}, {config.standardization}, {size} tokens)"

    only = _get_only(store, fitting, "several caption tables fit", "; ", describe, "--caption-table FINGERPRINT")
    if only is None:
        hint = f"Run `capt prepare captions … --dataset-name {dataset}`."
        raise StoreError(f"the dataset {dataset} has no captions", location=str(store.path), hint=hint)
    return only


def _reuse_vocabulary(asked: CaptionTable, dataset: str) -> CaptionTableConfig:
    """Returns the config of `asked` for another dataset, as `--vocab-from` makes it."""
    vocabulary = identify_given_vocabulary(asked.vocabulary())
    return asked.table_config.model_copy(
        update={"dataset": dataset, "vocabulary": vocabulary, "vocab_size": 0, "min_count": 1}
    )


def _select_features(
    store: Store,
    inputs: ModelSpec | PixelInput | AnyInput,
    datasets: list[Dataset],
    prefix: str | None,
    command: str = "capt prepare features",
) -> FeatureTable:
    if prefix:
        table = store.feature_table(prefix)
        inputs.check_shape(table.shape, table.fingerprint[:SHORT_FINGERPRINT])
        return table

    def describe(table: FeatureTable) -> str:
        config, shape = table.table_config, "×".join(map(str, table.shape))
        extractor = f"{config.extractor} {config.weights[:20]} {config.layer} {shape} {config.precision} {config.dtype}"
        return f"{table.fingerprint[:SHORT_FINGERPRINT]} ({extractor}, {table.rows} images)"

    keys = np.concatenate([stack_keys(dataset.catalog()) for dataset in datasets])
    candidates = [table for table in store.feature_tables() if (table.lookup(keys) >= 0).any()]
    fitting = [table for table in candidates if inputs.fits(table.shape)]
    only = _get_only(store, fitting, "several feature tables fit", "; ", describe, "--feature-table FINGERPRINT")
    if only is None:
        for table in candidates:
            inputs.check_shape(table.shape, table.fingerprint[:SHORT_FINGERPRINT])
        raise StoreError(
            f"no feature table contains images of {', '.join(dataset.name for dataset in datasets)}",
            location=str(store.path),
            hint=f"Run `{command} --dataset-name {datasets[0].name}`.",
        )
    return only


def _get_only(
    store: Store,
    fitting: Sequence[AnyTable],
    problem: str,
    separator: str,
    describe: Callable[[AnyTable], str],
    option: str,
) -> AnyTable | None:
    """Returns the only candidate, None without candidates; StoreError if there are several."""
    if len(fitting) > 1:
        found = separator.join(map(describe, fitting))
        raise StoreError(f"{problem}: {found}", location=str(store.path), hint=f"Choose one with {option}.")
    return fitting[0] if fitting else None
