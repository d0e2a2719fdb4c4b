"""HTML pages that are one file each: training examples, and the report of a demonstration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from schemas.table_config import SPECIAL_TOKENS, UNKNOWN
from trainer.reports.markup import document, escaped, inline, looked, picture, section, spoken, tiles


@dataclass(frozen=True)
class ExampleCaption:
    """A caption and its tokens.

    Args:
        text: str. The caption as published.
        ids: tuple of int. Its word ids, start and end included.
        words: tuple of str. The words of the ids.
    """

    text: str
    ids: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """An image and what is learned from it.

    Args:
        image: bytes or None. The encoded image; None where its file is not at hand.
        image_id: str. Its id within the dataset.
        split: str. `train`, `val`, `test` or `unused`.
        sentences: tuple of Sentence. All its captions.
    """

    image: bytes | None
    image_id: str
    split: str
    sentences: tuple[ExampleCaption, ...]


@dataclass(frozen=True)
class Step:
    """A step of a workflow: its name, what it did in a few words, and how many seconds it took."""

    name: str
    done: str
    seconds: float


@dataclass(frozen=True)
class CaptionedImage:
    """A held-out image with what the model says of it.

    Args:
        image: bytes. The encoded image.
        caption: str. The model's caption.
        references: tuple of str. What people, or the grammar, say of it.
        attention: bytes or None. A PNG or JPEG figure of where the model looked at each word.
        verdict: bool or None. Whether the caption is true of the image; None where nobody knows.
    """

    image: bytes
    caption: str
    references: tuple[str, ...]
    attention: bytes | None = None
    verdict: bool | None = None


@dataclass(frozen=True)
class Report:
    """What the report of a run shows, from top to bottom.

    Args:
        title: str. The page's name.
        headline: str. What came of it, in a sentence.
        notices: tuple of str. What a reader must know to judge it, such as a stand-in that was used.
        figures: Mapping. Label to value, a few numbers to take away.
        steps: tuple of Step. What was done, in order.
        loss_curve: bytes or None. A PNG or JPEG plot of the loss.
        tellings: tuple of Telling. Held-out images with their captions.
    """

    title: str
    headline: str
    notices: tuple[str, ...]
    figures: Mapping[str, object]
    steps: tuple[Step, ...]
    loss_curve: bytes | None
    tellings: tuple[CaptionedImage, ...]


def examples_page(title: str, examples: Sequence[Example], summary: Mapping[str, object]) -> str:
    """A page of training examples: each image with its split, all its captions and their tokens.

    Args:
        title: str. The page's name, such as the dataset's.
        examples: sequence of Example. In the order they are shown.
        summary: Mapping. Label to value, shown above the examples.

    Returns: str. A complete HTML document, to be written as UTF-8.
    """
    cards = "".join(map(_example, examples)) or '<p class="quiet">There are no examples to show.</p>'
    return document(
        title, f"<header><h1>{escaped(title)}</h1></header>{tiles(summary)}<main class='grid'>{cards}</main>"
    )


def report_page(report: Report) -> str:
    """The report of a demonstration or a run, from headline to attention maps.

    Returns: str. A complete HTML document, to be written as UTF-8.
    """
    parts = [
        f'<header><h1>{escaped(report.title)}</h1><p class="lead">{escaped(report.headline)}</p></header>',
        *(f'<p class="notice" role="note">{escaped(notice)}</p>' for notice in report.notices),
        tiles(report.figures),
        "<main>",
        f'<div class="pair">{section("What was done", _steps(report.steps))}{section("Loss", _loss(report))}</div>',
        section("Held-out images", "".join(map(_telling, report.tellings))),
        "</main>",
    ]
    return document(report.title, "".join(parts))


# === Parts ===


def _example(example: Example) -> str:
    captions = "".join(f"<li>{spoken(each.text)}{_tokens(each)}</li>" for each in example.sentences)
    return (
        f'<article class="card">{picture(example.image, f"image {example.image_id}")}'
        f'<div class="words"><p class="label"><code>{escaped(example.image_id)}</code> '
        f'<span class="split {escaped(example.split)}">{escaped(example.split)}</span></p>'
        f'<ol class="captions">{captions}</ol></div></article>'
    )


def _tokens(sentence: ExampleCaption) -> str:
    tokens = zip(sentence.ids, sentence.words, strict=True)
    chips = "".join(
        f'<span class="token{_kind(i)}"><bdi>{escaped(word)}</bdi><sub>{i}</sub></span> ' for i, word in tokens
    )
    return f'<p class="tokens">{chips}</p>' if chips else ""


def _kind(token: int) -> str:
    if token == UNKNOWN:
        return " unknown"
    return " special" if token < len(SPECIAL_TOKENS) else ""


def _telling(telling: CaptionedImage) -> str:
    references = "".join(f"<li>{spoken(text)}</li>" for text in telling.references)
    attention = "" if telling.attention is None else looked(telling.attention)
    return (
        f'<article class="card wide"><div class="side">{picture(telling.image, telling.caption)}'
        f'<div class="words"><p class="label">the model says{_verdict(telling.verdict)}</p>'
        f'<blockquote dir="auto">{escaped(telling.caption) or "nothing"}</blockquote>'
        f'<p class="label">the references</p><ul class="captions">{references}</ul></div></div>{attention}</article>'
    )


def _verdict(verdict: bool | None) -> str:
    if verdict is None:
        return ""
    return ' <span class="verdict yes">✓ true</span>' if verdict else ' <span class="verdict no">✗ not true</span>'


def _steps(steps: Iterable[Step]) -> str:
    steps = tuple(steps)
    rows = "".join(
        f"<tr><th scope='row'>{escaped(step.name)}</th><td>{escaped(step.done)}</td>"
        f"<td>{duration(step.seconds)}</td></tr>"
        for step in steps
    )
    total = duration(sum(step.seconds for step in steps))
    foot = f"<tfoot><tr><th scope='row'>together</th><td></td><td>{total}</td></tr></tfoot>"
    return f"<table><tbody>{rows}</tbody>{foot}</table>" if steps else ""


def _loss(report: Report) -> str:
    if report.loss_curve is None:
        return ""
    return f'<figure class="plot">{inline(report.loss_curve, "the loss as training went on")}</figure>'


def duration(seconds: float) -> str:
    """A time for people: `3.2 s`, `2 min 05 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
