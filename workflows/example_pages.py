"""Builds the HTML pages of training examples and of the demo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.table_config import SPECIAL_TOKENS, UNKNOWN
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
    plot,
    row,
    section,
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


@dataclass(frozen=True)
class Step:
    """A step of a workflow: its name, a short summary, and its duration in seconds."""

    name: str
    summary: str
    seconds: float


@dataclass(frozen=True)
class CaptionedImage:
    """A held-out image with the model's caption.

    Args:
        image: The encoded image.
        caption: The model's caption.
        references: The reference captions.
        attention: Figure of the attention maps (PNG or JPEG), if any.
        is_correct: Whether the caption describes the image correctly; None if unknown.
    """

    image: bytes
    caption: str
    references: tuple[str, ...]
    attention: bytes | None = None
    is_correct: bool | None = None


def build_examples_page(title: str, examples: Sequence[Example], summary: Mapping[str, object]) -> str:
    """Builds a page of training examples in their order, under labeled values (`summary`)."""
    none = element("p", "There are no examples.", class_="quiet")
    cards = [build_example(example) for example in examples] or [none]
    return document(title, header(title, values=summary), element("main", *cards, class_="grid"))


def build_demo_page(
    title: str,
    headline: str,
    notices: Sequence[str],
    values: Mapping[str, object],
    steps: Sequence[Step],
    loss_plot: bytes | None,
    images: Sequence[CaptionedImage],
) -> str:
    """Builds the page of the demo.

    Notices limit the result, such as missing ImageNet weights. The plot of the loss is a PNG or JPEG.
    """
    loss = plot(loss_plot, "loss by epoch") if loss_plot else ""
    return document(
        title,
        header(title, headline, notices, values),
        element(
            "main",
            element("div", section("Steps", _build_steps(steps)), section("Loss", loss), class_="pair"),
            section("Held-out images", *map(_build_captioned_image, images)),
        ),
    )


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


def _build_captioned_image(image: CaptionedImage) -> Html:
    verdict: object = ""
    if image.is_correct is not None:
        text, kind = ("✓ correct", "yes") if image.is_correct else ("✗ incorrect", "no")
        verdict = element("span", text, class_=f"verdict {kind}")
    return card(
        image.image,
        image.caption,
        label("caption ", verdict),
        element("blockquote", image.caption or "(empty)", dir="auto"),
        label("references"),
        caption_list(image.references),
        footer=attention_details(image.attention),
    )


def _build_steps(steps: Sequence[Step]) -> Html:
    if not steps:
        return Html()
    rows = [row(step.name, step.summary, format_duration(step.seconds)) for step in steps]
    total = row("total", "", format_duration(sum(step.seconds for step in steps)))
    return element("table", element("tbody", *rows), element("tfoot", total))
