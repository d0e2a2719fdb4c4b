"""Metrics: how near captions come to those that people wrote, by pycocoevalcap's scorers.

    bleu_1 … bleu_4   shared runs of 1 to 4 words, over all images, with the brevity penalty (Papineni et al., 2002)
    meteor            words matched by form, stem, synonym and paraphrase (Denkowski and Lavie, 2014); needs Java
    rouge_l           longest common subsequence, mean over images (Lin, 2004)
    cider_d           runs of words weighted by how telling they are, mean over images, ×10 (Vedantam et al., 2015)

Captions are tokenized by PTB's tokenizer where there is Java, else by a plain one; the result says which.
"""

import logging
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import CaptError, UsageError
from trainer.evaluation.caption_tokenizer import Tokenizer, one_line, plain_tokenize

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

Hypotheses = Mapping[Any, str] | Sequence[str]
References = Mapping[Any, Sequence[str]] | Sequence[Sequence[str]]
_Tokens = dict[Hashable, list[str]]

_log = logging.getLogger("capt.metrics")


@dataclass(frozen=True)
class Scores:
    """What scoring found.

    Args:
        metrics: dict. By name of `METRICS`, those that could be computed.
        ids: tuple. The images, in the order of the arrays.
        each: dict. The same metrics of each image alone, float64 [N]. Those of BLEU and METEOR do not average to the
            metric, which counts over all images.
        counts: int64 array [N, 10]. What BLEU counts of each image: matches of runs of 1 to 4 words, such runs said,
            words said, and words of the reference that is nearest in length.
        references: int. References of all images.
        tokenizer: str. `ptb` or `plain`.
        skipped_metrics: dict. Why a metric is missing, by its name.
    """

    metrics: dict[str, float]
    ids: tuple[Hashable, ...]
    each: dict[str, NDArray[np.float64]]
    counts: NDArray[np.int64]
    references: int
    tokenizer: Tokenizer
    skipped_metrics: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The metrics by name, then `images`, `references`, `tokenizer` and `skipped_metrics`."""
        return {
            **self.metrics,
            "images": len(self.ids),
            "references": self.references,
            "tokenizer": self.tokenizer,
            "skipped_metrics": self.skipped_metrics,
        }


def score(hypotheses: Hypotheses, references: References) -> dict[str, Any]:
    """The scores of captions, one an image, against all references of their images.

    Args:
        hypotheses: mapping of id to str, or sequence of str. The captions.
        references: mapping of id to sequence of str, or sequence of sequences of str. At least one of each image; ids
            as in `hypotheses`, in any order, or both sequences of one length.

    Returns:
        dict: `bleu_1` … `bleu_4`, `meteor`, `rouge_l` and `cider_d`, floats; `images` and `references`, how many;
        `tokenizer`, `ptb` or `plain`; `skipped_metrics`, why a metric is missing, by name: without Java, `meteor`.

    Raises:
        UsageError: there is nothing to score, or the ids differ.
        CaptError: pycocoevalcap is not installed.
    """
    with Scorer() as scorer:
        return scorer.score(hypotheses, references).to_dict()


class Scorer:
    """Scores several sets of captions; a context, for METEOR takes seconds to start and is then kept.

    Once Java has failed, nothing more is asked of it: what follows is scored as without Java.

    Args:
        metrics: collection of str. Those that are wanted; without `meteor` among them its process is not started.
    """

    def __init__(self, metrics: Collection[str] = METRICS) -> None:
        self._wanted = metrics
        self._cocoeval = _cocoeval()
        self._meteor: Any = None
        self._without_java = ""

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._meteor is not None:
            self._meteor.__exit__(*error)

    def score(self, hypotheses: Hypotheses, references: References) -> Scores:
        """What `trainer.metrics.score` gives, with the scores of each image."""
        said, told = _by_id(hypotheses, references)
        tokenizer, tokens = self._tokenize([*said.values(), *(text for texts in told.values() for text in texts)])
        res, gts = _grouped(tokens, told)
        metrics, each, counts = self._count(gts, res)
        if "meteor" in self._wanted and not self._without_java:
            self._add_meteor(gts, res, metrics, each)
        skipped_metrics = {"meteor": self._without_java} if "meteor" in self._wanted and "meteor" not in metrics else {}
        ordered = {name: metrics[name] for name in METRICS if name in metrics and name in self._wanted}
        return Scores(ordered, tuple(said), each, counts, sum(map(len, told.values())), tokenizer, skipped_metrics)

    def _tokenize(self, texts: list[str]) -> tuple[Tokenizer, list[str]]:
        if not self._without_java:
            try:
                return "ptb", self._cocoeval.java.tokenize(texts)
            except CaptError as error:
                self._give_up_java(error)
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
            self._give_up_java(error)

    def _give_up_java(self, error: CaptError) -> None:
        self._without_java = str(error)
        _log.debug("scored without Java: %s", error)


def cider_d(hypotheses: Hypotheses, references: References) -> float:
    """CIDEr-D with the plain tokenizer: quick, without Java, for validation while training.

    Args:
        hypotheses: mapping of id to str, or sequence of str. As for `score`.
        references: mapping of id to sequence of str, or sequence of sequences of str. As for `score`.

    Raises:
        UsageError: there is nothing to score, or the ids differ.
        CaptError: pycocoevalcap is not installed.
    """
    said, told = _by_id(hypotheses, references)
    tokens = plain_tokenize([*said.values(), *(text for texts in told.values() for text in texts)])
    res, gts = _grouped(tokens, told)
    return float(np.mean(_cider_d(_cocoeval(), gts, res)))


def bleu(counts: NDArray[Any]) -> NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of counts, as pycocoevalcap computes them of the sums over all images.

    Args:
        counts: array [..., 10]. Sums of rows of `Scores.counts`.

    Returns:
        float64 array [..., 4].
    """
    correct, guess, length, closest = np.split(np.asarray(counts, np.float64), [4, 8, 9], axis=-1)
    # Its constants, which keep a caption without any match above 0.
    precision = (correct + 1e-15) / (guess + 1e-9)
    ratio = (length + 1e-15) / (closest + 1e-9)
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    return np.cumprod(precision, axis=-1) ** (1 / np.arange(1, MAX_ORDER + 1)) * brevity


def _rouge_l(cocoeval: ModuleType, gts: _Tokens, res: _Tokens) -> NDArray[np.float64]:
    """Computes ROUGE-L per image.

    A caption without a word has 0. pycocoevalcap takes the empty text for a word, found in references without one.
    """
    rouge = cocoeval.Rouge()
    return np.array([rouge.calc_score(res[name], texts) if res[name][0] else 0.0 for name, texts in gts.items()])


def _cider_d(cocoeval: ModuleType, gts: _Tokens, res: _Tokens) -> NDArray[np.float64]:
    """Computes CIDEr-D per image; 0 if no reference has a word, which pycocoevalcap cannot count."""
    if not any(text for texts in gts.values() for text in texts):
        return np.zeros(len(gts))
    _, each = cocoeval.Cider().compute_score(gts, res)
    return np.asarray(each, np.float64)


def _cocoeval() -> ModuleType:
    try:
        from trainer.evaluation import coco_scorers
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("pycocoevalcap"):
            raise
        raise CaptError(
            "captions are scored by pycocoevalcap, which is not installed", hint="pip install 'capt[evaluate]'"
        ) from None
    return coco_scorers


def _by_id(hypotheses: Hypotheses, references: References) -> tuple[dict[Hashable, str], dict[Hashable, list[str]]]:
    """Texts of one line by id, both in the order of the hypotheses."""
    said = hypotheses if isinstance(hypotheses, Mapping) else dict(enumerate(hypotheses))
    told = references if isinstance(references, Mapping) else dict(enumerate(references))
    if not said:
        raise UsageError("there is no caption to score")
    for name in said:
        if not told.get(name):
            raise UsageError(f"the image {name!r} has no reference")
    for name in told:
        if name not in said:
            raise UsageError(f"the image {name!r} has references and no caption")
    return (
        {name: one_line(text) for name, text in said.items()},
        {name: [one_line(text) for text in _several(told[name])] for name in said},
    )


def _several(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise UsageError("references are a list an image, and this is one text", location=repr(texts[:60]))
    return texts


def _grouped(tokens: list[str], told: dict[Hashable, list[str]]) -> tuple[_Tokens, _Tokens]:
    """Tokenized hypotheses and references by id, as the scorers want them."""
    rest = iter(tokens[len(told) :])
    res = {name: [text] for name, text in zip(told, tokens, strict=False)}
    return res, {name: [next(rest) for _ in texts] for name, texts in told.items()}


def _bleu_counts(row: Mapping[str, Any]) -> list[int]:
    said = row["testlen"]
    closest = min(row["reflen"], key=lambda length: (abs(length - said), length))
    return [*row["correct"], *row["guess"], said, closest]
