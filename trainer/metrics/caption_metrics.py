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
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import CaptError, UsageError
from trainer.metrics.caption_tokenizer import Tokenizer, one_line, plain_tokenize

MAX_ORDER = 4
BLEU = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))
TITLES = {name: name.upper().replace("_", "-") for name in BLEU}
TITLES |= {"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D"}
METRICS = tuple(TITLES)
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
        per_image: Metrics per image, in the order of the hypotheses, float64 [N]. BLEU and METEOR are computed from
            counts over all images, not as means of these values.
        counts: BLEU statistics per image, int64 [N, 10]: matches of 1- to 4-grams, numbers of these n-grams, length of
            the caption, and length of the reference that is closest in length.
        references: Number of references.
        skipped_metrics: Reason per metric that could not be computed.
    """

    metrics: dict[str, float]
    per_image: dict[str, NDArray[np.float64]]
    counts: NDArray[np.int64]
    references: int
    tokenizer: Tokenizer
    skipped_metrics: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns the result of `trainer.metrics.score`."""
        names = ("references", "tokenizer", "skipped_metrics")
        return {**self.metrics, "images": len(self.counts), **{name: getattr(self, name) for name in names}}


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
        self._metrics = metrics
        self._cocoeval = _import_cocoeval()
        self._meteor: Any = None
        self._java_error = ""

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._meteor is not None:
            self._meteor.__exit__(*error)

    def score(self, hypotheses: Hypotheses, references: References) -> Scores:
        """Computes the scores of `trainer.metrics.score`, and the scores per image."""
        res, gts = _tokenize_by_id(hypotheses, references, self._tokenize)
        tokenizer: Tokenizer = "plain" if self._java_error else "ptb"
        bleu_scorer = self._cocoeval.BleuScorer(n=MAX_ORDER)
        for name, texts in gts.items():
            bleu_scorer += (res[name][0], texts)
        values, values_per_image = bleu_scorer.compute_score(option="closest", verbose=0)
        metrics = dict(zip(BLEU, map(float, values), strict=True))
        per_image = dict(zip(BLEU, map(np.asarray, values_per_image), strict=True))
        rouge = self._cocoeval.Rouge()
        # An empty caption scores 0. pycocoevalcap counts the empty text as a word and finds it in empty references.
        per_image["rouge_l"] = np.array(
            [rouge.calc_score(res[name], texts) if res[name][0] else 0.0 for name, texts in gts.items()]
        )
        per_image["cider_d"] = _cider_d(self._cocoeval, gts, res)
        metrics |= {name: float(np.mean(per_image[name])) for name in MEANS_OVER_IMAGES}
        skipped = {}
        if "meteor" in self._metrics:
            try:
                if not self._java_error:
                    self._meteor = self._meteor or self._cocoeval.java.Meteor().__enter__()
                    metrics["meteor"], values = self._meteor.compute_score(gts, res)
                    per_image["meteor"] = np.array(values)
            except CaptError as error:
                self._disable_java(error)
            if self._java_error:
                skipped["meteor"] = self._java_error
        ordered = {name: metrics[name] for name in METRICS if name in metrics and name in self._metrics}
        counts = np.array([_bleu_counts(row) for row in bleu_scorer.ctest], np.int64)
        return Scores(ordered, per_image, counts, sum(map(len, gts.values())), tokenizer, skipped)

    def _tokenize(self, texts: list[str]) -> list[str]:
        if not self._java_error:
            try:
                tokens: list[str] = self._cocoeval.java.tokenize(texts)
                return tokens
            except CaptError as error:
                self._disable_java(error)
        return plain_tokenize(texts)

    def _disable_java(self, error: CaptError) -> None:
        self._java_error = str(error)
        _log.debug("Scoring without Java: %s", error)


def cider_d(hypotheses: Hypotheses, references: References) -> float:
    """Computes the CIDEr-D of `score` with the plain tokenizer: fast, for validation during training."""
    res, gts = _tokenize_by_id(hypotheses, references, plain_tokenize)
    return float(np.mean(_cider_d(_import_cocoeval(), gts, res)))


def bleu(counts: NDArray[Any], *, brevity_penalty: bool = True) -> NDArray[np.float64]:
    """Computes BLEU-1 to BLEU-4, float64 [..., 4], from sums [..., 10] of rows of `Scores.counts`, as pycocoevalcap."""
    correct, guess, length, closest = np.split(np.asarray(counts, np.float64), [4, 8, 9], axis=-1)
    # Constants of pycocoevalcap, which keep a caption without matches above 0.
    precision = (correct + 1e-15) / (guess + 1e-9)
    ratio = (length + 1e-15) / (closest + 1e-9)
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio)) if brevity_penalty else 1.0
    scores: NDArray[np.float64] = np.cumprod(precision, axis=-1) ** (1 / np.arange(1, MAX_ORDER + 1)) * brevity
    return scores


def _cider_d(cocoeval: SimpleNamespace, gts: _Tokens, res: _Tokens) -> NDArray[np.float64]:
    """Computes CIDEr-D per image; 0 if all references are empty, because pycocoevalcap fails on these."""
    if not any(text for texts in gts.values() for text in texts):
        return np.zeros(len(gts))
    return np.asarray(cocoeval.Cider().compute_score(gts, res)[1], np.float64)


def _import_cocoeval() -> SimpleNamespace:
    try:
        # Not SPICE, whose constructor downloads files.
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        from trainer.metrics import java
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("pycocoevalcap"):
            raise
        raise CaptError("pycocoevalcap is not installed", hint="Run `pip install 'capt[evaluate]'`.") from None
    return SimpleNamespace(BleuScorer=BleuScorer, Cider=Cider, Rouge=Rouge, java=java)


def _tokenize_by_id(
    hypotheses: Hypotheses, references: References, tokenize: Callable[[list[str]], list[str]]
) -> tuple[_Tokens, _Tokens]:
    """Checks captions and references, and returns their tokens by image ID in the order of the hypotheses."""
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
    texts = [*captions.values(), *(text for name in captions for text in by_id[name])]
    tokens = iter(tokenize([one_line(text) for text in texts]))
    res = {name: [next(tokens)] for name in captions}
    return res, {name: [next(tokens) for _ in by_id[name]] for name in captions}


def _bleu_counts(row: Mapping[str, Any]) -> list[int]:
    length = row["testlen"]
    closest = min(row["reflen"], key=lambda reference: (abs(reference - length), reference))
    return [*row["correct"], *row["guess"], length, closest]
