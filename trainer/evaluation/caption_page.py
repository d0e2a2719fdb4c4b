"""Renders the HTML page of some captions of an evaluation, with images, attention maps and marked errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.metrics.caption_tokenizer import mark_wrong_words
from trainer.reports.markup import (
    Html,
    attention_details,
    caption_list,
    card,
    document,
    element,
    header,
    join,
    label,
    mark_wrong,
    section,
)


@dataclass(frozen=True)
class CaptionPrediction:
    """A held-out image with its generated caption."""

    name: str
    image: bytes | None  # encoded; None if it can no longer be read
    words: tuple[str, ...]
    references: tuple[str, ...]
    scores: Mapping[str, float]  # by title; shown × 100
    attention: bytes | None = None  # the attention maps as JPEG; None for models without attention


def predictions_page(
    title: str,
    notes: Sequence[str],
    metrics: Mapping[str, object],
    sections: Mapping[str, Sequence[CaptionPrediction]],
) -> str:
    """Renders the page as an HTML document, with values by title in `metrics` and captions by heading in `sections`."""
    marked = element("span", "marked", class_="wrong")
    lead = join(["Scores × 100. Words that are in no reference of their image are ", marked, "."])
    return document(
        title,
        header(title, lead, notes, metrics),
        element("main", *(section(heading, *map(_card, captions)) for heading, captions in sections.items())),
    )


def _card(one: CaptionPrediction) -> Html:
    scores = " · ".join(f"{name} {100 * value:.1f}" for name, value in one.scores.items())
    caption = mark_wrong(one.words, mark_wrong_words(one.words, one.references))
    return card(
        one.image,
        " ".join(one.words),
        label(element("code", one.name), f" {scores}"),
        element("blockquote", caption or "(empty)", dir="auto"),
        label("references"),
        caption_list(one.references),
        footer=attention_details(one.attention),
    )
