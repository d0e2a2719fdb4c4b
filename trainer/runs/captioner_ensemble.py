"""Opens several captioner runs as one: their models vote at every step of caption generation."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import tee
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.extraction import EncodedImage
from features.store import Store
from schemas.errors import RecordError, UsageError
from schemas.table_config import compute_digest
from trainer.data.concatenated_features import ConcatenatedFeatures, ConcatenatedTables
from trainer.runs.captioner_run import Caption, CaptionerRun
from trainer.runs.run import open_run


class CaptionerEnsemble(CaptionerRun):
    """Runs with one vocabulary; path, metadata and names of images are those of the first.

    The features of an image are those of every feature table that a member reads, concatenated: float32 [values].

    Args:
        members: The runs, in any number of feature tables.

    Raises:
        UsageError: A run has another vocabulary, or is named twice.
    """

    def __init__(self, members: Sequence[CaptionerRun]) -> None:
        first = members[0]
        super().__init__(first.path, first.metadata, first.epoch)
        self.members = tuple(members)
        for number, member in enumerate(members):
            if member.vocabulary != first.vocabulary:
                message = f"its vocabulary differs from that of {first.path}"
                hint = "Choose runs that were trained with one caption table."
                raise UsageError(message, location=f"--ensemble {member.path}", hint=hint)
            if any(member.path.resolve() == other.path.resolve() for other in members[:number]):
                raise UsageError("the run is named twice", location=f"--ensemble {member.path}", hint="Omit it.")

    @cached_property
    def model(self) -> Any:  # type: ignore[override]
        """The models of the members as one."""
        from trainer.decoding.ensemble import EnsembleMember, EnsembleModel

        starts, start = {}, 0
        for fingerprint, member in self._extracting.items():
            starts[fingerprint], start = start, start + prod(member.metadata.features.shape)
        origins = [member.metadata.features for member in self.members]
        return EnsembleModel(
            [
                EnsembleMember(member.model, starts[origin.fingerprint], origin.shape)
                for member, origin in zip(self.members, origins, strict=True)
            ]
        )

    @property
    def evaluation_name(self) -> str:
        name = f"ensemble-{compute_digest([str(member.path) for member in self.members])[:8]}"
        return f"{name}-epoch-{self.epoch}" if self.epoch else name

    @property
    def ensemble_paths(self) -> Sequence[Path]:
        return [member.path for member in self.members[1:]]

    @property
    def validation_splits(self) -> frozenset[str]:
        return frozenset().union(*(member.validation_splits for member in self.members))

    @property
    def identity(self) -> str:
        return compute_digest([member.identity for member in self.members])

    @cached_property
    def training_images(self) -> NDArray[np.uint8]:
        return np.unique(np.concatenate([member.training_images for member in self.members]), axis=0)

    def open_tables(self, store: Store) -> ConcatenatedTables:
        tables = [member.open_tables(store) for member in self._extracting.values()]
        features = ConcatenatedFeatures(tuple(one.features for one in tables))
        return ConcatenatedTables(tables[0].datasets, features, tables[0].caption_tables)

    def compute_attention(self, image: EncodedImage, caption: Caption) -> NDArray[np.float32]:
        raise UsageError("an ensemble has no attention heads of its own", location="--ensemble", hint="Use one run.")

    def _extract(self, images: Iterable[EncodedImage]) -> Iterator[NDArray[Any] | RecordError]:
        branches = tee(images, len(self._extracting))
        each = (member._extract(branch) for member, branch in zip(self._extracting.values(), branches, strict=True))
        for results in zip(*each, strict=True):
            failed = next((result for result in results if isinstance(result, RecordError)), None)
            yield failed or np.concatenate([np.ravel(result).astype(np.float32) for result in results])

    @cached_property
    def _extracting(self) -> dict[str, CaptionerRun]:
        """The first member with each feature table, by its fingerprint."""
        first: dict[str, CaptionerRun] = {}
        for member in self.members:
            first.setdefault(member.metadata.features.fingerprint, member)
        return first


def open_captioner(run: str, others: Sequence[str], epoch: int | None = None) -> CaptionerRun:
    """Opens a captioner, or an ensemble of it and others; raises as `combine_captioners`."""
    return combine_captioners(open_run(run, CaptionerRun, epoch), others)


def combine_captioners(run: CaptionerRun, others: Sequence[str]) -> CaptionerRun:
    """Opens other runs and combines them with `run` to an ensemble; without others, returns `run`.

    Raises:
        UsageError: A run is no captioner, or cannot be a member of the ensemble.
        StoreError: A run is not usable.
    """
    return CaptionerEnsemble([run, *(open_run(other, CaptionerRun) for other in others)]) if others else run
