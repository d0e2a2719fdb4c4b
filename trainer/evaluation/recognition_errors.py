"""Renders the HTML page of the worst recognition errors, with wrong characters marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.recognition_metrics import align
from trainer.reports.markup import Html, card, document, element, header, inline_image, join, label, mark_wrong, section


@dataclass(frozen=True)
class RecognitionError:
    """An image with a wrong prediction.

    Args:
        name: Name of the image.
        image: The encoded image; None if it can no longer be read.
        label: Label of the image.
        predictions: The prediction of each decoding strategy.
        score: Log-probability of the greedy prediction.
    """

    name: str
    image: bytes | None
    label: str
    predictions: Mapping[str, str]
    score: float


def recognition_errors_page(
    title: str,
    notes: Sequence[str],
    metrics: Mapping[str, object],
    worst: Sequence[RecognitionError],
    confusion: bytes,
) -> str:
    """Renders the page as an HTML document.

    Args:
        title: Title of the page.
        notes: Facts that are needed to interpret the metrics.
        metrics: Values by title, shown at the top.
        worst: The errors, in the order of the page.
        confusion: The confusion matrix as PNG.
    """
    marked = element("span", "marked", class_="wrong")
    lead = join(["Labels with most character errors first. Wrong and missing characters are ", marked, "."])
    plot = element("div", inline_image(confusion, "confusion matrix of the characters"), class_="plot")
    return document(
        title,
        header(title, lead, notes, metrics),
        element(
            "main",
            section("Worst recognition errors", *map(_card, worst)),
            section("Confused characters in wrong predictions", plot),
        ),
    )


def _card(one: RecognitionError) -> Html:
    predictions = [
        part
        for strategy, text in one.predictions.items()
        for part in (label(strategy), element("blockquote", _mark(one.label, text) or "(empty)"))
    ]
    return card(
        one.image,
        one.label,
        label(element("code", one.name), f" log-probability {one.score:.2f}"),
        label("label"),
        element("blockquote", one.label),
        *predictions,
    )


def _mark(expected: str, prediction: str) -> Html:
    pairs = align(expected, prediction)
    return mark_wrong([got or "·" for _, got in pairs], [want != got for want, got in pairs], "")
