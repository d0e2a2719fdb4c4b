"""Renders the HTML page of the best and the worst captions, with images, attention maps and marked errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.images.decode import open_image
from features.images.resize import Resizer
from schemas.errors import to_record_error
from trainer.metrics.caption_tokenizer import plain_tokens
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
from trainer.reports.plots import attention_figure, encode_figure
from trainer.runs.captioner_run import Caption

_MAX_PIXELS = (320, 320)  # width and height of the image in a panel


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
    best: Sequence[CaptionPrediction],
    worst: Sequence[CaptionPrediction],
) -> str:
    """Renders the page as an HTML document, with values by title in `metrics` and captions in their order."""
    marked = element("span", "marked", class_="wrong")
    lead = join(["Scores × 100. Words that are in no reference of their image are ", marked, "."])
    return document(
        title,
        header(title, lead, notes, metrics),
        element("main", section("Best captions", *map(_card, best)), section("Worst captions", *map(_card, worst))),
    )


def mark_wrong_words(words: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Returns for each word of a caption whether no reference contains it; punctuation is never wrong."""
    known = {token for text in references for token in plain_tokens(text)}
    return [not known.issuperset(plain_tokens(word)) for word in words]


def draw_attention_maps(image: bytes | None, caption: Caption, resizer: Resizer) -> bytes | None:
    """Draws the attention map of each word over the part of an encoded image that the model receives, as JPEG.

    None if there is no attention, or the image or the maps cannot be drawn.
    """
    if image is None or caption.attention is None or not caption.words:
        return None
    try:
        opened = open_image(image)
        opened.thumbnail(_MAX_PIXELS)
        return encode_figure(attention_figure(resizer.crop_visible(opened), caption.words, caption.attention), "jpeg")
    except Exception as error:
        to_record_error("draw", error)
        return None


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
