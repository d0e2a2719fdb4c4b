"""Which tables of a store a run is trained on: the ones asked for, or the only ones that fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.store import CaptionTable, Dataset, FeatureTable, Store
from schemas.errors import StoreError
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT
from trainer.models.model_specs import RECOGNIZER_INPUT, ModelSpec, PixelInput


class FeatureSource(Protocol):
    """What is needed of `features.store.FeatureTable`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Positions of content keys uint8 [N, 32]; −1 where there is none."""

    def ensure_local(self, positions: NDArray[np.int64]) -> None:
        """Have what is at these positions at hand, where the store is at an address."""

    def read(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Features [N, *shape] at these positions."""


@dataclass(frozen=True)
class TrainingTables:
    """What a run is trained on.

    Args:
        datasets: tuple of Dataset. Where captions and images meet.
        texts: tuple of CaptionTable. The captions of each dataset; all have one vocabulary.
        features: FeatureTable. The features of all their images.
    """

    datasets: tuple[Dataset, ...]
    texts: tuple[CaptionTable, ...]
    features: FeatureTable

    def __iter__(self) -> Iterator[Dataset | CaptionTable | FeatureTable]:
        return iter((*self.datasets, *self.texts, self.features))


@dataclass(frozen=True)
class LabelledTables:
    """What a recognizer of words is trained on.

    Args:
        datasets: tuple of Dataset. Where words and images meet.
        features: FeatureTable. The pixels of all their images.
    """

    datasets: tuple[Dataset, ...]
    features: FeatureTable

    def __iter__(self) -> Iterator[Dataset | FeatureTable]:
        return iter((*self.datasets, self.features))


def select_tables(
    store: Store,
    spec: ModelSpec | PixelInput,
    datasets: Sequence[str] | None = None,
    features: str | None = None,
    captions: str | None = None,
) -> TrainingTables:
    """The tables that a model is trained on.

    Args:
        store: Store. Where they lie.
        spec: ModelSpec or PixelInput. The model, or pixels for one; tables of features of other shapes do not fit.
        datasets: sequence of str or None. Names; None where the store holds exactly one dataset with captions.
        features: str or None. Fingerprint, or its beginning; None where exactly one feature table fits.
        captions: str or None. Fingerprint, or its beginning; None where each dataset has exactly one text table.

    Raises:
        StoreError: there is no such table, or several fit; the message lists them and names the option that picks one.
        UsageError: the feature table asked for is not what the model wants.
    """
    texts = store.caption_tables()
    chosen = _datasets(store, texts, datasets)
    return TrainingTables(
        tuple(chosen), tuple(_texts(store, texts, chosen, captions)), _features(store, spec, chosen, features)
    )


def select_labelled_tables(
    store: Store, datasets: Sequence[str] | None = None, features: str | None = None
) -> LabelledTables:
    """The tables that a recognizer of words is trained on.

    Args:
        store: Store. Where they lie.
        datasets: sequence of str or None. Names; None where the store holds exactly one dataset with words.
        features: str or None. Fingerprint, or its beginning; None where exactly one table of pixels fits.

    Raises:
        StoreError: there is no such table, or several fit; the message lists them and names the option that picks one.
        UsageError: the feature table asked for has no pixels.
    """
    chosen = _labelled(store, datasets)
    return LabelledTables(tuple(chosen), _features(store, RECOGNIZER_INPUT, chosen, features, "capt prepare captcha"))


def _labelled(store: Store, names: Sequence[str] | None) -> list[Dataset]:
    if names:
        return [store.dataset(name) for name in dict.fromkeys(names)]
    return _only(
        [dataset for dataset in store.datasets() if len(dataset.labels())], store, "words", "`capt prepare captcha`"
    )


def _only(fitting: list[Dataset], store: Store, message: str, command: str) -> list[Dataset]:
    """The single dataset that has captions, or words; StoreError where there is none, or several."""
    if len(fitting) == 1:
        return fitting
    if fitting:
        found = ", ".join(dataset.name for dataset in fitting)
        raise StoreError(
            f"several datasets have {message}: {found}", location=str(store.path), hint="pick with --dataset NAME"
        )
    raise StoreError(f"no dataset has both images and {message}", location=str(store.path), hint=f"run {command}")


def _datasets(store: Store, texts: list[CaptionTable], names: Sequence[str] | None) -> list[Dataset]:
    if names:
        return [store.dataset(name) for name in dict.fromkeys(names)]
    captioned = {table.table_config.dataset for table in texts}
    fitting = [dataset for dataset in store.datasets() if dataset.name in captioned]
    command = "`capt prepare features` and `capt prepare captions` with the same --dataset-name"
    return _only(fitting, store, "captions", command)


def _texts(store: Store, tables: list[CaptionTable], datasets: list[Dataset], prefix: str | None) -> list[CaptionTable]:
    anchor = store.caption_table(prefix) if prefix else None
    if anchor and anchor.table_config.dataset not in [dataset.name for dataset in datasets]:
        raise StoreError(
            f"the text table {anchor.fingerprint[:SHORT_FINGERPRINT]} holds captions of {anchor.table_config.dataset}",
            location=str(store.path),
            hint=f"add --dataset {anchor.table_config.dataset}, or pick another --caption-table",
        )
    chosen = [_text(store, tables, dataset.name, anchor) for dataset in datasets]
    words = chosen[0].vocabulary()
    for table in chosen[1:]:
        if table.vocabulary() != words:
            raise StoreError(
                f"{table.table_config.dataset} and {chosen[0].table_config.dataset} have different vocabularies",
                location=str(store.path),
                hint=f"run `capt prepare captions --dataset-name {table.table_config.dataset} "
                f"--vocab-from {chosen[0].fingerprint[:SHORT_FINGERPRINT]}`",
            )
    return chosen


def _text(store: Store, tables: list[CaptionTable], dataset: str, anchor: CaptionTable | None) -> CaptionTable:
    if anchor and anchor.table_config.dataset == dataset:
        return anchor
    fitting = [table for table in tables if table.table_config.dataset == dataset]
    if anchor and len(fitting) > 1:
        words = anchor.vocabulary()
        fitting = [table for table in fitting if table.vocabulary() == words] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise StoreError(
            f"the dataset {dataset} has no captions",
            location=str(store.path),
            hint=f"run `capt prepare captions --dataset-name {dataset}`",
        )
    raise StoreError(
        f"several text tables fit: {'; '.join(map(_describe_text, fitting))}",
        location=str(store.path),
        hint="pick with --caption-table ID",
    )


def _features(
    store: Store,
    spec: ModelSpec | PixelInput,
    datasets: list[Dataset],
    prefix: str | None,
    command: str = "capt prepare features",
) -> FeatureTable:
    if prefix:
        table = store.feature_table(prefix)
        spec.check_shape(table.shape, table.fingerprint[:SHORT_FINGERPRINT])
        return table
    keys = np.concatenate([stack_keys(dataset.catalog()) for dataset in datasets])
    holding = [table for table in store.feature_tables() if (table.lookup(keys) >= 0).any()]
    fitting = [table for table in holding if spec.fits(table.shape)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise StoreError(
            f"several feature tables fit: {'; '.join(map(_describe_features, fitting))}",
            location=str(store.path),
            hint="pick with --feature-table ID",
        )
    for table in holding:
        spec.check_shape(table.shape, table.fingerprint[:SHORT_FINGERPRINT])
    names = ", ".join(dataset.name for dataset in datasets)
    raise StoreError(
        f"no feature table holds images of {names}",
        location=str(store.path),
        hint=f"run `{command} --dataset-name {datasets[0].name}`",
    )


def _describe_features(table: FeatureTable) -> str:
    table_config = table.table_config
    shape = "×".join(map(str, table.shape))
    made = f"{table_config.extractor} {table_config.weights[:20]} {table_config.layer} {shape}"
    words = f"{made} {table_config.precision} {table_config.dtype}"
    return f"{table.fingerprint[:SHORT_FINGERPRINT]} ({words}, {table.rows} images)"


def _describe_text(table: CaptionTable) -> str:
    table_config = table.table_config
    words = f"{table_config.dataset}, {table_config.standardizer}, {len(table.vocabulary())} words"
    return f"{table.fingerprint[:SHORT_FINGERPRINT]} ({words})"
