"""Creates stores with a table, its frozen graph and one row, so that runs of `capt prepare features` can be timed.

A run into a copy starts like every run except the first. Its start-up time, such as loading the graph, does not depend
on the number of images. The difference of two runs excludes it.
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
class PreparedStore:
    """A store with one table.

    Args:
        path: The store.
        precision: Precision of the extractor.
        extractor: A model of `keras.applications` with random weights of a fixed seed.
    """

    path: Path
    precision: Precision
    extractor: str = "inception_v3"

    @property
    def table(self) -> FeatureTable:
        """The only table."""
        (table,) = open_store(self.path).feature_tables()
        return table

    def copy(self, path: Path) -> "PreparedStore":
        """Copies the store to another path and replaces what exists there."""
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.path, path)
        return replace(self, path=path)

    def prepare(self, images: Path, shards: int | None = None, beam_options: tuple[str, ...] = ()) -> float:
        """Runs `capt prepare features` over a directory of images and returns the seconds. No image may fail."""
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


def prepare_store(work: Path, precision: Precision, extractor: str = "inception_v3") -> PreparedStore:
    """Creates a store in a working directory."""
    store = PreparedStore(work / "begun", precision, extractor)
    write_photographs(work / "first", 1, _ELSEWHERE)
    store.prepare(work / "first")
    return store
