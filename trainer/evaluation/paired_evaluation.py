"""Evaluates runs on the same images, so that their metrics can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from features.store import Store
from schemas.errors import CaptError
from schemas.tables import KEY_BYTES
from schemas.terminal.progress import progress_bar
from trainer.data.held_out_images import ImageName
from trainer.evaluation.bootstrap import MetricSamples
from trainer.runs.run import DECODE_BATCH, Run


@dataclass(frozen=True)
class CommonImages:
    """The images that runs are compared on: content hashes, and the captions of each or only its label."""

    names: tuple[ImageName, ...]
    keys: tuple[bytes, ...]
    references: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, mask: NDArray[np.bool_]) -> "CommonImages":
        """Returns the images that the mask selects."""
        return CommonImages(
            tuple(compress(self.names, mask)), tuple(compress(self.keys, mask)), tuple(compress(self.references, mask))
        )

    def with_features(self, store: Store, runs: Sequence[Run]) -> "CommonImages":
        """Returns the images that are in the feature table of every run."""
        return self.select(np.logical_and.reduce([_find_rows(run, store, self) >= 0 for run in runs]))


def sample_run(run: Run, store: Store, images: CommonImages) -> MetricSamples:
    """Evaluates a run by greedy decoding on images, which are all in its feature table; CaptError without images."""
    if not len(images):
        raise CaptError("there are no images to evaluate the run on", location=str(store.path))
    table, rows = store.feature_table(run.metadata.features.fingerprint), _find_rows(run, store, images)
    texts: list[str] = []
    with progress_bar(f"evaluating {run.path.name}", len(rows), "images") as show:
        for start in range(0, len(rows), DECODE_BATCH):
            texts += run.predict_texts(table.read(rows[start : start + DECODE_BATCH]))
            show(len(texts), "")
    return run.task.sample_metrics(texts, images.references)


def _find_rows(run: Run, store: Store, images: CommonImages) -> NDArray[np.int64]:
    keys = np.frombuffer(b"".join(images.keys), np.uint8).reshape(-1, KEY_BYTES)
    return store.feature_table(run.metadata.features.fingerprint).lookup(keys)
