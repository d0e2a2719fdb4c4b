"""Predictions: a page of the best and the worst captions, with their images, maps and words that nobody said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.images.decode import open_image
from features.images.resizer import Resizer
from schemas.errors import to_record_error
from trainer.evaluation.caption_tokenizer import plain_tokens
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

_DRAWN = (320, 320)  # pixels at most of a panel's image


@dataclass(frozen=True)
class CaptionPrediction:
    """A held-out image with what a run says of it.

    Args:
        name: str. What to call the image.
        image: bytes or None. The encoded image; None where it is not at hand any more.
        words: tuple of str. The caption.
        references: tuple of str. What people said of it.
        scores: mapping. The caption's own scores, by label; shown times 100.
        attention: bytes or None. A JPEG of where the model looked; None for models that do not attend.
    """

    name: str
    image: bytes | None
    words: tuple[str, ...]
    references: tuple[str, ...]
    scores: Mapping[str, float]
    attention: bytes | None = None


def predictions_page(
    title: str,
    notices: Sequence[str],
    figures: Mapping[str, object],
    best: Sequence[CaptionPrediction],
    worst: Sequence[CaptionPrediction],
) -> str:
    """A page of predictions; in each, the words that are in no reference are marked.

    Args:
        title: str. The page's name.
        notices: sequence of str. What a reader must know to judge it.
        figures: mapping. Label to value, shown above the predictions.
        best: sequence of Prediction. In the order they are shown.
        worst: sequence of Prediction. As `best`.

    Returns: str. A complete HTML document, to be written as UTF-8.
    """
    marked = element("span", "marked", class_="wrong")
    lead = join(["Scores × 100. Words that are in no reference of their image are ", marked, "."])
    return document(
        title,
        header(title, lead, notices, figures),
        element("main", section("Best captions", *map(_card, best)), section("Worst captions", *map(_card, worst))),
    )


def wrong_words(words: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Of each word of a caption, whether it is in no reference; what the tokenizer drops is never wrong."""
    told = {token for text in references for token in plain_tokens(text)}
    return [not told.issuperset(plain_tokens(word)) for word in words]


def draw_attention_maps(image: bytes | None, made: Caption, fitting: Resizer) -> bytes | None:
    """Where a model looked at each word, over what it saw of the image, as a JPEG.

    Args:
        image: bytes or None. The encoded image.
        made: Caption. What was said of it.
        fitting: Fitting. How the run brings images to the network's size.

    Returns:
        bytes, or None where the model does not attend, or the image or its map cannot be drawn.
    """
    if image is None or made.attention is None or not made.words:
        return None
    try:
        seen = open_image(image)
        seen.thumbnail(_DRAWN)
        return encode_figure(attention_figure(fitting.crop_visible(seen), made.words, made.attention), "jpeg")
    except Exception as error:
        to_record_error("draw", error)
        return None


def _card(one: CaptionPrediction) -> Html:
    scores = " · ".join(f"{name} {100 * value:.1f}" for name, value in one.scores.items())
    caption = mark_wrong(one.words, wrong_words(one.words, one.references))
    return card(
        one.image,
        " ".join(one.words),
        label(element("code", one.name), f" {scores}"),
        element("blockquote", caption or "(empty)", dir="auto"),
        label("references"),
        caption_list(one.references),
        footer=attention_details(one.attention),
    )
