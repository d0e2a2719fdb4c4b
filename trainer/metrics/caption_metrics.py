"""Scores captions against references with pycocoevalcap's scorers.

    bleu_n    geometric mean of the 1- to n-gram precisions over all images, × brevity penalty (Papineni et al., 2002)
    meteor    alignment by form, stem, synonym and paraphrase (Denkowski and Lavie, 2014); requires Java
    rouge_l   F-score (β = 1.2) of the best precision and the best recall of the longest common subsequence, mean over
              images (Lin, 2004)
    cider_d   similarity of TF-IDF-weighted n-grams, mean over images, times 10 (Vedantam et al., 2015)

The PTB tokenizer splits captions if Java is available, otherwise the plain tokenizer splits them. The result names the
tokenizer.
"""

import logging
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import CaptError, UsageError
from trainer.metrics.caption_tokenizer import Tokenizer, one_line, plain_tokenize

TITLES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
}
METRICS = tuple(TITLES)
MAX_ORDER = 4
BLEU = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))
MEANS_OVER_IMAGES = ("rouge_l", "cider_d")
# METEOR of a resample does not follow from values per image.
RESAMPLED_METRICS = (*BLEU, *MEANS_OVER_IMAGES)

Hypotheses = Mapping[Any, str] | Sequence[str]
References = Mapping[Any, Sequence[str]] | Sequence[Sequence[str]]
_Tokens = dict[Hashable, list[str]]

_log = logging.getLogger("capt.metrics")


@dataclass(frozen=True)
class Scores:
    """Scores of captions.

    Args:
        metrics: Computed metrics, by name of `METRICS`.
        ids: Image IDs, in the order of the arrays.
        each: Metrics per image, float64 [N]. BLEU and METEOR are computed from counts over all images, not as
            means of these values.
        counts: BLEU statistics per image, int64 [N, 10]: matches of 1- to 4-grams, numbers of these n-grams, length of
            the caption, and length of the reference that is closest in length.
        references: Number of references.
        tokenizer: `ptb` or `plain`.
        skipped_metrics: Reason per metric that could not be computed.
    """

    metrics: dict[str, float]
    ids: tuple[Hashable, ...]
    each: dict[str, NDArray[np.float64]]
    counts: NDArray[np.int64]
    references: int
    tokenizer: Tokenizer
    skipped_metrics: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the metrics by name, then `images`, `references`, `tokenizer` and `skipped_metrics`."""
        return {
            **self.metrics,
            "images": len(self.ids),
            "references": self.references,
            "tokenizer": self.tokenizer,
            "skipped_metrics": self.skipped_metrics,
        }


def score(hypotheses: Hypotheses, references: References) -> dict[str, Any]:
    """Scores one caption per image against all references of the image.

    Args:
        hypotheses: Captions by image ID, or a sequence of captions.
        references: References by image ID, at least one per image in any order of images, or a sequence of lists of
            references in the order of the hypotheses.

    Returns:
        `bleu_1` … `bleu_4`, `meteor`, `rouge_l` and `cider_d`; the numbers of `images` and `references`; `tokenizer`,
        `ptb` or `plain`; and `skipped_metrics`, a reason per metric that could not be computed (`meteor` without Java).

    Raises:
        UsageError: The captions are empty, or the image IDs differ.
        CaptError: pycocoevalcap is not installed.
    """
    with Scorer() as scorer:
        return scorer.score(hypotheses, references).to_dict()


class Scorer:
    """Scores several sets of captions; a context manager that keeps METEOR's process, which takes seconds to start.

    After Java has failed once, the scorer continues without Java.

    Args:
        metrics: Names of the metrics to compute. Without `meteor`, its process is not started.
    """

    def __init__(self, metrics: Collection[str] = METRICS) -> None:
        self._wanted = metrics
        self._cocoeval = _cocoeval()
        self._meteor: Any = None
        self._java_error = ""

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._meteor is not None:
            self._meteor.__exit__(*error)

    def score(self, hypotheses: Hypotheses, references: References) -> Scores:
        """Computes the scores of `trainer.metrics.score`, and the scores per image."""
        captions, references_by_id = _key_by_id(hypotheses, references)
        tokenizer, tokens = self._tokenize(_list_texts(captions, references_by_id))
        res, gts = _group_tokens(tokens, references_by_id)
        metrics, each, counts = self._count(gts, res)
        if "meteor" in self._wanted and not self._java_error:
            self._add_meteor(gts, res, metrics, each)
        skipped = {"meteor": self._java_error} if "meteor" in self._wanted and "meteor" not in metrics else {}
        ordered = {name: metrics[name] for name in METRICS if name in metrics and name in self._wanted}
        return Scores(ordered, tuple(captions), each, counts, sum(map(len, gts.values())), tokenizer, skipped)

    def _tokenize(self, texts: list[str]) -> tuple[Tokenizer, list[str]]:
        if not self._java_error:
            try:
                return "ptb", self._cocoeval.java.tokenize(texts)
            except CaptError as error:
                self._disable_java(error)
        return "plain", plain_tokenize(texts)

    def _count(
        self, gts: _Tokens, res: _Tokens
    ) -> tuple[dict[str, float], dict[str, NDArray[np.float64]], NDArray[np.int64]]:
        bleu = self._cocoeval.BleuScorer(n=MAX_ORDER)
        for name, texts in gts.items():
            bleu += (res[name][0], texts)
        together, alone = bleu.compute_score(option="closest", verbose=0)
        metrics = {f"bleu_{order}": float(value) for order, value in enumerate(together, start=1)}
        each = {f"bleu_{order}": np.asarray(values) for order, values in enumerate(alone, start=1)}
        for name, compute in (("rouge_l", _rouge_l), ("cider_d", _cider_d)):
            each[name] = compute(self._cocoeval, gts, res)
            metrics[name] = float(np.mean(each[name]))
        return metrics, each, np.array([_bleu_counts(row) for row in bleu.ctest], np.int64)

    def _add_meteor(
        self, gts: _Tokens, res: _Tokens, metrics: dict[str, float], each: dict[str, NDArray[np.float64]]
    ) -> None:
        try:
            if self._meteor is None:
                self._meteor = self._cocoeval.java.Meteor().__enter__()
            metrics["meteor"], scores = self._meteor.compute_score(gts, res)
            each["meteor"] = np.array(scores)
        except CaptError as error:
            self._disable_java(error)

    def _disable_java(self, error: CaptError) -> None:
        self._java_error = str(error)
        _log.debug("Scoring without Java: %s", error)


def cider_d(hypotheses: Hypotheses, references: References) -> float:
    """Computes CIDEr-D with the plain tokenizer: fast and without Java, for validation during training.

    Args:
        hypotheses: See `score`.
        references: See `score`.

    Raises:
        UsageError: The captions are empty, or the image IDs differ.
        CaptError: pycocoevalcap is not installed.
    """
    captions, references_by_id = _key_by_id(hypotheses, references)
    tokens = plain_tokenize(_list_texts(captions, references_by_id))
    res, gts = _group_tokens(tokens, references_by_id)
    return float(np.mean(_cider_d(_cocoeval(), gts, res)))


def bleu(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Computes BLEU-1 to BLEU-4 from sums of rows of `Scores.counts`, as pycocoevalcap does.

    Args:
        counts: Array [..., 10].

    Returns:
        float64 array [..., 4].
    """
    correct, guess, length, closest = np.split(np.asarray(counts, np.float64), [4, 8, 9], axis=-1)
    # Constants of pycocoevalcap, which keep a caption without matches above 0.
    precision = (correct + 1e-15) / (guess + 1e-9)
    ratio = (length + 1e-15) / (closest + 1e-9)
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    scores: NDArray[np.float64] = np.cumprod(precision, axis=-1) ** (1 / np.arange(1, MAX_ORDER + 1)) * brevity
    return scores


def _rouge_l(cocoeval: ModuleType, gts: _Tokens, res: _Tokens) -> NDArray[np.float64]:
    """Computes ROUGE-L per image.

    An empty caption scores 0. pycocoevalcap counts the empty text as a word and finds this word in empty references.
    """
    rouge = cocoeval.Rouge()
    return np.array([rouge.calc_score(res[name], texts) if res[name][0] else 0.0 for name, texts in gts.items()])


def _cider_d(cocoeval: ModuleType, gts: _Tokens, res: _Tokens) -> NDArray[np.float64]:
    """Computes CIDEr-D per image; 0 if all references are empty, because pycocoevalcap fails on these."""
    if not any(text for texts in gts.values() for text in texts):
        return np.zeros(len(gts))
    _, each = cocoeval.Cider().compute_score(gts, res)
    return np.asarray(each, np.float64)


def _cocoeval() -> ModuleType:
    try:
        from trainer.metrics import coco_scorers
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("pycocoevalcap"):
            raise
        raise CaptError("pycocoevalcap is not installed", hint="Run pip install 'capt[evaluate]'.") from None
    return coco_scorers


def _key_by_id(hypotheses: Hypotheses, references: References) -> tuple[dict[Hashable, str], dict[Hashable, list[str]]]:
    """Returns single-line texts by image ID, both in the order of the hypotheses."""
    captions = hypotheses if isinstance(hypotheses, Mapping) else dict(enumerate(hypotheses))
    by_id = references if isinstance(references, Mapping) else dict(enumerate(references))
    if not captions:
        raise UsageError("there is no caption to score")
    for name in captions:
        if not by_id.get(name):
            raise UsageError(f"image {name!r} has no reference")
    for name, texts in by_id.items():
        if name not in captions:
            raise UsageError(f"image {name!r} has references but no caption")
        if isinstance(texts, str):
            raise UsageError("the references of an image must be a list", location=repr(texts[:60]))
    return (
        {name: one_line(text) for name, text in captions.items()},
        {name: [one_line(text) for text in by_id[name]] for name in captions},
    )


def _list_texts(captions: dict[Hashable, str], references: dict[Hashable, list[str]]) -> list[str]:
    return [*captions.values(), *(text for texts in references.values() for text in texts)]


def _group_tokens(tokens: list[str], references: dict[Hashable, list[str]]) -> tuple[_Tokens, _Tokens]:
    """Returns tokenized hypotheses and references by image ID, as the scorers expect them."""
    rest = iter(tokens[len(references) :])
    res = {name: [text] for name, text in zip(references, tokens, strict=False)}
    return res, {name: [next(rest) for _ in texts] for name, texts in references.items()}


def _bleu_counts(row: Mapping[str, Any]) -> list[int]:
    length = row["testlen"]
    closest = min(row["reflen"], key=lambda reference: (abs(reference - length), reference))
    return [*row["correct"], *row["guess"], length, closest]
