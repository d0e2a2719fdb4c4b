"""Begun stores: a table's network built and frozen, and one row, so that runs of `capt prepare features` can be timed.

A run into a copy of one begins as all but the first do. What it takes before and after its images, such as loading the
network, is the same for few images and for many: the difference of two runs has none of it.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from photographs import write_photographs

import capt
from features.store import FeatureTable, open_store
from schemas.choices import Precision

_ELSEWHERE = 10_000_000  # a photograph that no benchmark takes


@dataclass(frozen=True)
class BegunStore:
    """A store with one table.

    Args:
        path: Path. The store.
        precision: str. Arithmetic of the network.
        extractor: str. A network of `keras.applications`; its weights are random, of one seed.
    """

    path: Path
    precision: Precision
    extractor: str = "inception_v3"

    @property
    def table(self) -> FeatureTable:
        """Its table."""
        (table,) = open_store(self.path).feature_tables()
        return table

    def copy(self, path: Path) -> "BegunStore":
        """The same at another path, in place of what is there."""
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.path, path)
        return replace(self, path=path)

    def prepare(self, images: Path, shards: int | None = None, beam_options: tuple[str, ...] = ()) -> float:
        """Seconds of `capt prepare features` over a folder of images, none of which may fail."""
        started = time.perf_counter()
        figures = capt.prepare_features(
            store=str(self.path),
            dataset_type="folder",
            images=[str(images)],
            extractor=self.extractor,
            weights="random:7",
            precision=self.precision,
            num_shards=shards,
            beam_options=list(beam_options),
        )
        seconds = time.perf_counter() - started
        assert not figures["failed"], figures
        return seconds


def begin_store(work: Path, precision: Precision, extractor: str = "inception_v3") -> BegunStore:
    """A begun store in a working directory."""
    store = BegunStore(work / "begun", precision, extractor)
    write_photographs(work / "first", 1, _ELSEWHERE)
    store.prepare(work / "first")
    return store
