"""Contests: two runs on the same images, each with its own vocabulary, against what people said, word for word."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.store import Store
from schemas.errors import CaptError
from schemas.tables import KEY_BYTES
from schemas.terminal.progress import progress_bar
from trainer.data.held_out_images import ImageName
from trainer.evaluation.bootstrap import MetricSamples, sample_captions, sample_labels
from trainer.metrics import METRICS, Scorer
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import DECODE_BATCH

EXACT_MATCH = "exact_match"
# METEOR has no interval.
CAPTION_METRICS = tuple(name for name in METRICS if name != "meteor")

AnyRun = CaptionerRun | RecognizerRun


@dataclass(frozen=True)
class CommonImages:
    """Images that runs are compared on.

    Args:
        names: tuple of (dataset, image id).
        keys: tuple of bytes. Their content keys.
        references: tuple of tuple of str. What people said of each: captions, or the one word that it shows.
    """

    names: tuple[ImageName, ...]
    keys: tuple[bytes, ...]
    references: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, chosen: NDArray[np.bool_]) -> "CommonImages":
        """Some of them."""
        places = np.flatnonzero(chosen).tolist()
        return CommonImages(
            tuple(self.names[place] for place in places),
            tuple(self.keys[place] for place in places),
            tuple(self.references[place] for place in places),
        )

    def with_features(self, store: Store, runs: Sequence[AnyRun]) -> "CommonImages":
        """Those whose features every run's table holds."""
        held = [_rows(run, store, self) >= 0 for run in runs]
        return self.select(np.logical_and.reduce(held))


def sample_run(run: AnyRun, store: Store, images: CommonImages) -> MetricSamples:
    """How a run scores on images, speaking greedily.

    Args:
        run: CaptionerRun or RecognizerRun. The run.
        store: Store. Where its features are.
        images: Images. At least one; its table holds them all.

    Raises:
        CaptError: there is no image.
        StoreError: the store lacks the run's table.
    """
    if not len(images):
        raise CaptError("there is no image to score runs on", location=str(store.path))
    said = _said(run, store, images)
    if isinstance(run, RecognizerRun):
        return sample_labels(np.array([words[0] for words in images.references]) == np.array(said))
    with Scorer(CAPTION_METRICS) as scorer:
        return sample_captions(scorer.score(said, images.references))


def _said(run: AnyRun, store: Store, images: CommonImages) -> list[str]:
    table, rows = store.feature_table(run.metadata.features.fingerprint), _rows(run, store, images)
    said: list[str] = []
    with progress_bar(f"asking {run.path.name}", len(rows), "images") as show:
        for start in range(0, len(rows), DECODE_BATCH):
            values = table.read(rows[start : start + DECODE_BATCH])
            if isinstance(run, RecognizerRun):
                said += [readings.greedy.text for readings in run.recognize_pixels(values)]
            else:
                said += [caption.text for caption in run.caption_features(values)]
            show(len(said), "")
    return said


def _rows(run: AnyRun, store: Store, images: CommonImages) -> NDArray[np.int64]:
    keys = np.frombuffer(b"".join(images.keys), np.uint8).reshape(-1, KEY_BYTES)
    return store.feature_table(run.metadata.features.fingerprint).lookup(keys)
