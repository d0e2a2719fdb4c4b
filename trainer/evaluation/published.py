"""Shows a run beside the published scores of its dataset: `capt evaluate --beside published`.

The scores are in `published.yaml`. BLEU with a brevity penalty does not compare with BLEU without one, so the run has a
row for each.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, get_args

import yaml

from features.store import Dataset
from schemas.choices import PublishedDataset
from schemas.errors import UsageError
from schemas.frozen import Frozen
from trainer.metrics.caption_metrics import BLEU, Scores, bleu

DATASETS: tuple[PublishedDataset, ...] = get_args(PublishedDataset)
METRICS = (*BLEU, "meteor")
OWN_BLEU = "with brevity penalty"
UNPENALIZED_BLEU = "without brevity penalty"


class PublishedScore(Frozen):
    """The scores of a model in a paper, × 100; None if the paper does not state one."""

    model: str
    source: str
    bleu: str  # the convention of BLEU
    bleu_1: float | None = None
    bleu_2: float | None = None
    bleu_3: float | None = None
    bleu_4: float | None = None
    meteor: float | None = None


@cache
def read_published() -> dict[str, list[PublishedScore]]:
    """Returns the published scores by dataset."""
    text = files("trainer.evaluation").joinpath("published.yaml").read_text(encoding="utf-8")
    return {name: [PublishedScore(**row) for row in rows] for name, rows in yaml.safe_load(text).items()}


def find_published(beside: str, datasets: Sequence[Dataset]) -> PublishedDataset:
    """Returns the dataset whose table is shown: the one that `--beside` names, or that of the run.

    A run's dataset is known by its name, such as `flickr8k` or `flickr8k-karpathy`. Its dataset type does not identify
    it, because other datasets have the layout of COCO.

    Raises:
        UsageError: The run has several datasets, or one without published scores.
    """
    if beside != "published":
        return next(name for name in DATASETS if name == beside)
    found = {_identify(dataset.name) for dataset in datasets}
    known = found.pop() if len(found) == 1 else None
    if known is None:
        names = ", ".join(dataset.name for dataset in datasets)
        hint = f"Choose one with --beside: {', '.join(DATASETS)}."
        raise UsageError(f"there is no published table of {names}", location="--beside published", hint=hint)
    return known


def _identify(dataset: str) -> PublishedDataset | None:
    return next((name for name in DATASETS if name in dataset.lower()), None)


def compare_published(name: PublishedDataset, model: str, scores: Scores) -> dict[str, Any]:
    """Returns the published table of a dataset with the rows of a run.

    Returns:
        `dataset` and `rows`, first those of the run, then those of papers: `model`, `source` (`this run` or the paper),
        `bleu` (the convention of BLEU), and the metrics × 100, null if unknown.
    """
    counts = scores.counts.sum(axis=0)
    unpenalized = dict(zip(BLEU, bleu(counts, brevity_penalty=False).tolist(), strict=True))
    own = [
        _own_row(model, OWN_BLEU, scores.metrics),
        _own_row(model, UNPENALIZED_BLEU, {**scores.metrics, **unpenalized}),
    ]
    return {"dataset": name, "rows": own + [row.model_dump() for row in read_published()[name]]}


def _own_row(model: str, convention: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    values = {name: round(100 * metrics[name], 2) if name in metrics else None for name in METRICS}
    return {"model": model, "source": "this run", "bleu": convention, **values}
