"""Builds the HTML page of training examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.table_config import SPECIAL_TOKENS, UNKNOWN
from trainer.reports.markup import (
    Html,
    document,
    element,
    header,
    join,
    label,
    thumbnail,
)


@dataclass(frozen=True)
class ExampleCaption:
    """A caption as published, and the ID and word of each of its tokens; none if the caption is not tokenized."""

    text: str
    ids: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """A training example: the encoded image, if its file is available, its ID and split, and all its captions."""

    image: bytes | None
    image_id: str
    split: str
    sentences: tuple[ExampleCaption, ...]


def build_examples_page(title: str, examples: Sequence[Example], summary: Mapping[str, object]) -> str:
    """Builds a page of training examples in their order, under labeled values (`summary`)."""
    none = element("p", "There are no examples.", class_="quiet")
    cards = [build_example(example) for example in examples] or [none]
    return document(title, header(title, values=summary), element("main", *cards, class_="grid"))


def format_duration(seconds: float) -> str:
    """Returns a duration such as `3.2 s` or `2 min 05 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def build_example(example: Example) -> Html:
    """Builds the card of a training example."""
    captions = [
        element("li", element("span", caption.text, dir="auto"), _build_tokens(caption))
        for caption in example.sentences
    ]
    split = element("span", example.split, class_=f"split {example.split}")
    heading = label(element("code", example.image_id), " ", split)
    words = element("div", heading, element("ol", *captions, class_="captions"), class_="words")
    return element("article", thumbnail(example.image, f"image {example.image_id}"), words, class_="card")


def _build_tokens(caption: ExampleCaption) -> Html:
    tokens = []
    for token_id, word in zip(caption.ids, caption.words, strict=True):
        kind = " unknown" if token_id == UNKNOWN else " special" if token_id < len(SPECIAL_TOKENS) else ""
        tokens.append(element("span", element("bdi", word), element("sub", token_id), class_=f"token{kind}"))
    return element("p", join(tokens, " "), class_="tokens") if tokens else Html()
