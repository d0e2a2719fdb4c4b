"""Renders the HTML page of some captions of an evaluation, with images, attention maps and marked errors."""

from collections.abc import Iterable, Mapping, Sequence, Set
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
    section,
)
from trainer.reports.word_sections import ShownWord, word_anchor, word_section


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
    tables: Sequence[Html] = (),
    next_words: Html | None = None,
    wrong_words: Sequence[ShownWord] = (),
) -> str:
    """Renders the page as an HTML document, with values by title in `metrics` and captions by heading in `sections`.

    `next_words` is the section of words predicted from the true words. Wrong words link to their entries in
    `wrong_words`.
    """
    linked = {one.use.text for one in wrong_words}
    marked = element("span", "marked", class_="wrong")
    more = ", and link to their use in the captions of the store." if linked else "."
    lead = join(["Scores × 100. Words that are in no reference of their image are ", marked, more])
    return document(
        title,
        header(title, lead, notes, metrics),
        element(
            "main",
            *tables,
            *(section(heading, *(_card(one, linked) for one in captions)) for heading, captions in sections.items()),
            next_words or "",
            section("Wrong words in the captions of the store", *map(word_section, wrong_words)),
        ),
    )


def find_wrong_words(predictions: Iterable[CaptionPrediction]) -> list[str]:
    """Returns the wrong words of captions, each once, in their order."""
    marked = (zip(one.words, mark_wrong_words(one.words, one.references), strict=True) for one in predictions)
    return list(dict.fromkeys(word for pairs in marked for word, is_wrong in pairs if is_wrong))


def _card(one: CaptionPrediction, linked: Set[str]) -> Html:
    scores = " · ".join(f"{name} {100 * value:.1f}" for name, value in one.scores.items())
    marks = zip(one.words, mark_wrong_words(one.words, one.references), strict=True)
    caption = join((_mark(word, linked) if is_wrong else word for word, is_wrong in marks), " ")
    return card(
        one.image,
        " ".join(one.words),
        label(element("code", one.name), f" {scores}"),
        element("blockquote", caption or "(empty)", dir="auto"),
        label("references"),
        caption_list(one.references),
        footer=attention_details(one.attention),
    )


def _mark(word: str, linked: Set[str]) -> Html:
    if word not in linked:
        return element("span", word, class_="wrong")
    return element("a", word, class_="wrong", href=f"#{word_anchor(word)}")
