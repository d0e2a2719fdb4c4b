"""Misreadings: a page of the words that were read worst, with their images, wrong letters marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.recognition_metrics import align
from trainer.reports.markup import Html, card, document, element, header, inline_image, join, label, mark_wrong, section


@dataclass(frozen=True)
class RecognitionError:
    """An image that was read wrong.

    Args:
        name: str. What to call the image.
        image: bytes or None. The encoded image; None where it is not at hand any more.
        word: str. What it says.
        read: dict. What each decoder read, by name.
        score: float. Natural logarithm of the probability of the greedy one.
    """

    name: str
    image: bytes | None
    word: str
    read: Mapping[str, str]
    score: float


def recognition_errors_page(
    title: str,
    notices: Sequence[str],
    figures: Mapping[str, object],
    worst: Sequence[RecognitionError],
    confusion: bytes,
) -> str:
    """A page of misreadings.

    Args:
        title: str. The page's name.
        notices: sequence of str. What a reader must know to judge it.
        figures: mapping. Label to value, shown above.
        worst: sequence of Misreading. In the order they are shown.
        confusion: bytes. A PNG of which letters were read for which.

    Returns: str. A complete HTML document, to be written as UTF-8.
    """
    marked = element("span", "marked", class_="wrong")
    lead = join(["Labels with most character errors first. Wrong and missing characters are ", marked, "."])
    plot = element("div", inline_image(confusion, "confusion matrix of the characters"), class_="plot")
    return document(
        title,
        header(title, lead, notices, figures),
        element(
            "main",
            section("Worst recognition errors", *map(_card, worst)),
            section("Confused characters in wrong predictions", plot),
        ),
    )


def _card(one: RecognitionError) -> Html:
    predictions = [
        part
        for strategy, text in one.read.items()
        for part in (label(strategy), element("blockquote", _mark(one.word, text) or "(empty)"))
    ]
    return card(
        one.image,
        one.word,
        label(element("code", one.name), f" log-probability {one.score:.2f}"),
        label("label"),
        element("blockquote", one.word),
        *predictions,
    )


def _mark(word: str, read: str) -> Html:
    pairs = align(word, read)
    return mark_wrong([seen or "·" for _, seen in pairs], [said != seen for said, seen in pairs], "")
