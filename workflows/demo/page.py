"""Builds the HTML page of the demo: examples first, then CAPTCHAs, steps, learning curves and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.reports.markup import (
    Html,
    attention_details,
    caption_list,
    card,
    document,
    element,
    header,
    inline_image,
    label,
    plot,
    row,
    section,
    table,
    thumbnail,
)
from workflows.demo.steps import Step
from workflows.example_pages import format_duration


@dataclass(frozen=True)
class WordMap:
    """The attention map of a word or phrase, drawn over the image (PNG or JPEG)."""

    words: str
    image: bytes


@dataclass(frozen=True)
class CaptionedImage:
    """An image with the model's caption.

    Args:
        image: The encoded image; None if it can no longer be read.
        caption: The model's caption.
        references: The reference captions.
        maps: Attention maps of the words that name something.
        attention: Figure of the attention maps of all words (PNG or JPEG), if any.
        is_correct: Whether the caption describes the image correctly; None if unknown.
        error: What is wrong in the caption, if that is known.
    """

    image: bytes | None
    caption: str
    references: tuple[str, ...]
    maps: tuple[WordMap, ...] = ()
    attention: bytes | None = None
    is_correct: bool | None = None
    error: str | None = None


@dataclass(frozen=True)
class ReadLabel:
    """An encoded CAPTCHA, the text that was read in it, and its label."""

    image: bytes
    text: str
    label: str

    @property
    def is_right(self) -> bool:
        """Whether every character was read correctly."""
        return self.text == self.label


@dataclass(frozen=True)
class Measure:
    """A figure of the demo: a fraction of `count` cases, and the fraction by chance, if that is known."""

    name: str
    fraction: float
    chance: float | None
    count: int


@dataclass(frozen=True)
class DemoPart:
    """The result of one task: its `--json`, and what the page shows about it."""

    summary: dict[str, Any]
    headline: str
    title: str
    lead: str
    values: Mapping[str, object]
    loss_plot: bytes
    measures: Sequence[Measure] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    good: Sequence[CaptionedImage] = ()
    bad: CaptionedImage | None = None
    bad_title: str = "A caption that is not true"
    more: Sequence[CaptionedImage] = ()
    labels: Sequence[ReadLabel] = ()


def build_demo_page(
    title: str, notices: Sequence[str], parts: Sequence[DemoPart], steps: Sequence[Step], values: Mapping[str, object]
) -> str:
    """Builds the page of the demo. Notices limit the result, such as missing ImageNet weights."""
    lead = " ".join(part.headline for part in parts)
    top = {name: value for part in parts for name, value in part.values.items()} | dict(values)
    plots = [plot(part.loss_plot, f"learning curves: {part.title}", part.title) for part in parts]
    more = [card for part in parts for card in map(_build_full_card, part.more)]
    return document(
        title,
        header(title, lead, notices, top),
        element(
            "main",
            *map(_build_part, parts),
            element("div", section("Steps", _build_steps(steps)), section("Learning curves", *plots), class_="pair"),
            section("Figures", _build_measures(parts), _build_scores(parts)),
            section("More captions", *more),
        ),
    )


def _build_part(part: DemoPart) -> Html:
    body = [
        element("p", part.lead, class_="quiet") if part.lead and part.good else "",
        element("div", *map(_build_good_card, part.good), class_="grid examples") if part.good else "",
        *([element("h3", part.bad_title), _build_bad_card(part.bad)] if part.bad else ()),
        element("div", *map(_build_label, part.labels), class_="labels") if part.labels else "",
    ]
    return section(part.title, *body)


def _build_good_card(one: CaptionedImage) -> Html:
    words = element("div", _verdict(one), element("blockquote", one.caption, dir="auto"), class_="words")
    return element("article", thumbnail(one.image, one.caption), words, _build_maps(one), class_="card")


def _build_bad_card(one: CaptionedImage) -> Html:
    return _build_wide_card(one, _build_maps(one))


def _build_full_card(one: CaptionedImage) -> Html:
    return _build_wide_card(one, attention_details(one.attention))


def _build_wide_card(one: CaptionedImage, maps: Html) -> Html:
    return card(
        one.image,
        one.caption,
        label("caption ", _verdict(one)),
        element("blockquote", one.caption or "(empty)", dir="auto"),
        label("references"),
        caption_list(one.references),
        footer=maps,
    )


def _build_maps(one: CaptionedImage) -> Html:
    maps = [
        element("figure", inline_image(each.image, f"attention at {each.words}"), element("figcaption", each.words))
        for each in one.maps
    ]
    return element("div", *maps, class_="maps") if maps else Html()


def _verdict(one: CaptionedImage) -> Html:
    if one.is_correct is None:
        return Html()
    text = "✓ true" if one.is_correct else "✗ not true" + (f": {one.error}" if one.error else "")
    return element("span", text, class_=f"verdict {'yes' if one.is_correct else 'no'}")


def _build_label(one: ReadLabel) -> Html:
    mark, kind = ("✓", "yes") if one.is_right else ("✗", "no")
    text = element("span", f"{mark} {one.text or '(empty)'}", class_=f"verdict {kind}")
    truth = "" if one.is_right else f" instead of {one.label}"
    return element("figure", thumbnail(one.image, one.label), element("figcaption", text, truth), class_="card")


def _build_measures(parts: Sequence[DemoPart]) -> Html:
    rows = [
        row(one.name, f"{one.fraction:.1%}", "–" if one.chance is None else f"{one.chance:.1%}", f"{one.count:,}")
        for part in parts
        for one in part.measures
    ]
    return table(("fraction of", "model", "by chance", "number"), rows)


def _build_scores(parts: Sequence[DemoPart]) -> Html:
    rows = [row(name, f"{100 * value:.1f}") for part in parts for name, value in part.scores.items()]
    return table(("metric", "× 100"), rows)


def _build_steps(steps: Sequence[Step]) -> Html:
    if not steps:
        return Html()
    rows = [row(step.name, step.summary, format_duration(step.seconds)) for step in steps]
    total = row("total", "", format_duration(sum(step.seconds for step in steps)))
    return element("table", element("tbody", *rows), element("tfoot", total))
