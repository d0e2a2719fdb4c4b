"""Misreadings: a page of the words that were read worst, with their images, wrong letters marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.recognition_metrics import align
from trainer.reports.markup import document, escaped, inline, picture, section, tiles


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
    drawn = f'<div class="plot">{inline(confusion, "letters said against letters read")}</div>'
    parts = [
        f'<header><h1>{escaped(title)}</h1><p class="lead">Words read wrong, those with most wrong letters first. '
        'Letters that are wrong are <span class="wrong">marked</span>, and so are ones that were missed.</p></header>',
        *(f'<p class="notice" role="note">{escaped(notice)}</p>' for notice in notices),
        tiles(figures),
        "<main>",
        section("Worst misreadings", "".join(map(_card, worst))),
        section("Letters read for others, in words read wrong", drawn),
        "</main>",
    ]
    return document(title, "".join(parts))


def _card(one: RecognitionError) -> str:
    rows = "".join(
        f'<p class="label">{escaped(how)}</p><blockquote>{_marked(one.word, text) or "nothing"}</blockquote>'
        for how, text in one.read.items()
    )
    return (
        f'<article class="card wide"><div class="side">{picture(one.image, one.word)}'
        f'<div class="words"><p class="label"><code>{escaped(one.name)}</code> log-probability {one.score:.2f}</p>'
        f'<p class="label">said</p><blockquote>{escaped(one.word)}</blockquote>{rows}</div></div></article>'
    )


def _marked(word: str, read: str) -> str:
    return "".join(
        escaped(seen) if said == seen else f'<span class="wrong">{escaped(seen or "·")}</span>'
        for said, seen in align(word, read)
    )
