"""HTML pages that are one file each: training examples, and the report of a demonstration.

Pictures are inlined, styles too, and nothing is fetched or run: the pages read the same from a mail or a stick. Every
text is escaped, for captions may hold anything.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from features.images import encode_thumbnail
from schemas.errors import RecordError
from schemas.recipes import SPECIAL_TOKENS, UNKNOWN

THUMBNAIL = 400  # pixels of the longer side: sharp at the width of a card on a phone

_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Sentence:
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
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Step:
    """A step of a workflow: its name, what it did in a few words, and how many seconds it took."""

    name: str
    done: str
    seconds: float


@dataclass(frozen=True)
class Telling:
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
    tellings: tuple[Telling, ...]


def examples_page(title: str, examples: Sequence[Example], summary: Mapping[str, object]) -> str:
    """A page of training examples: each image with its split, all its captions and their tokens.

    Args:
        title: str. The page's name, such as the dataset's.
        examples: sequence of Example. In the order they are shown.
        summary: Mapping. Label to value, shown above the examples.

    Returns: str. A complete HTML document, to be written as UTF-8.
    """
    cards = "".join(map(_example, examples)) or '<p class="quiet">There are no examples to show.</p>'
    return _page(title, f"<header><h1>{_text(title)}</h1></header>{_figures(summary)}<main class='grid'>{cards}</main>")


def report_page(report: Report) -> str:
    """The report of a demonstration or a run, from headline to attention maps.

    Returns: str. A complete HTML document, to be written as UTF-8.
    """
    parts = [
        f'<header><h1>{_text(report.title)}</h1><p class="lead">{_text(report.headline)}</p></header>',
        *(f'<p class="notice" role="note">{_text(notice)}</p>' for notice in report.notices),
        _figures(report.figures),
        "<main>",
        f'<div class="pair">{_section("What was done", _steps(report.steps))}{_section("Loss", _loss(report))}</div>',
        _section("Held-out images", "".join(map(_telling, report.tellings))),
        "</main>",
    ]
    return _page(report.title, "".join(parts))


# === Parts ===


def _example(example: Example) -> str:
    captions = "".join(f"<li>{_caption(each.text)}{_tokens(each)}</li>" for each in example.sentences)
    return (
        f'<article class="card">{_picture(example.image, f"image {example.image_id}")}'
        f'<div class="words"><p class="label"><code>{_text(example.image_id)}</code> '
        f'<span class="split {_text(example.split)}">{_text(example.split)}</span></p>'
        f'<ol class="captions">{captions}</ol></div></article>'
    )


def _tokens(sentence: Sentence) -> str:
    tokens = zip(sentence.ids, sentence.words, strict=True)
    chips = "".join(
        f'<span class="token{_kind(i)}"><bdi>{_text(word)}</bdi><sub>{i}</sub></span> ' for i, word in tokens
    )
    return f'<p class="tokens">{chips}</p>' if chips else ""


def _kind(token: int) -> str:
    if token == UNKNOWN:
        return " unknown"
    return " special" if token < len(SPECIAL_TOKENS) else ""


def _telling(telling: Telling) -> str:
    references = "".join(f"<li>{_caption(text)}</li>" for text in telling.references)
    looked = ""
    if telling.attention is not None:
        figure = _inline(telling.attention, "where the model looked at each word")
        looked = f'<details class="attention" open><summary>Where it looked</summary>{figure}</details>'
    return (
        f'<article class="card wide"><div class="side">{_picture(telling.image, telling.caption)}'
        f'<div class="words"><p class="label">the model says{_verdict(telling.verdict)}</p>'
        f'<blockquote dir="auto">{_text(telling.caption) or "nothing"}</blockquote>'
        f'<p class="label">the references</p><ul class="captions">{references}</ul></div></div>{looked}</article>'
    )


def _verdict(verdict: bool | None) -> str:
    if verdict is None:
        return ""
    return ' <span class="verdict yes">✓ true</span>' if verdict else ' <span class="verdict no">✗ not true</span>'


def _steps(steps: Iterable[Step]) -> str:
    steps = tuple(steps)
    rows = "".join(
        f"<tr><th scope='row'>{_text(step.name)}</th><td>{_text(step.done)}</td><td>{_duration(step.seconds)}</td></tr>"
        for step in steps
    )
    total = _duration(sum(step.seconds for step in steps))
    foot = f"<tfoot><tr><th scope='row'>together</th><td></td><td>{total}</td></tr></tfoot>"
    return f"<table><tbody>{rows}</tbody>{foot}</table>" if steps else ""


def _loss(report: Report) -> str:
    if report.loss_curve is None:
        return ""
    return f'<figure class="plot">{_inline(report.loss_curve, "the loss as training went on")}</figure>'


def _figures(figures: Mapping[str, object]) -> str:
    tiles = "".join(f"<div><dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>" for label, value in figures.items())
    return f'<dl class="figures">{tiles}</dl>' if tiles else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>" if content else ""


def _caption(text: str) -> str:
    return f'<span dir="auto">{_text(text)}</span>'


def _picture(image: bytes | None, alt: str) -> str:
    if image is None:
        return '<div class="picture none">the image is not at hand</div>'
    try:
        return f'<div class="picture">{_inline(encode_thumbnail(image, THUMBNAIL), alt)}</div>'
    except RecordError as error:
        return f'<div class="picture none">the image cannot be shown: {_text(error.reason)}</div>'


def _inline(data: bytes, alt: str) -> str:
    kind = next(kind for signature, kind in _SIGNATURES.items() if data.startswith(signature))
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:{kind};base64,{encoded}" alt="{_text(alt)}">'


def _duration(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _text(value: object) -> str:
    """The value as text that is safe between tags and in quoted attributes.

    Lone surrogates, which JSON can smuggle into a caption, become question marks: they cannot be written as UTF-8.
    """
    return html.escape(str(value).encode(errors="replace").decode())


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Even a caption that slipped past the escaping could load and run nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f6f4; --card: #fff; --ink: #1d1f21; --quiet: #666a70; --line: #dfe0dc; --chip: #eef0f2;
  --accent: #1f5fae; --warn: #8a5200; --warn-ground: #fff4dc; --yes: #1b7138; --no: #ad2b2b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181b; --card: #1f2226; --ink: #e8e8e6; --quiet: #9a9fa6; --line: #34383e; --chip: #2b3036;
    --accent: #7fb4f5; --warn: #f2c062; --warn-ground: #35290f; --yes: #74cf90; --no: #f08a8a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem;
  background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .8rem; font-size: 1.2rem; }
p { margin: 0; }
code { font: .9em ui-monospace, monospace; }
.lead { margin-top: .5rem; font-size: 1.1rem; color: var(--quiet); max-width: 46rem; }
.quiet, .label { color: var(--quiet); }
.label { font-size: .85rem; }
.notice {
  margin-top: 1rem; padding: .7rem 1rem; border-left: 4px solid var(--warn); border-radius: 4px;
  background: var(--warn-ground); color: var(--ink);
}
.figures { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.2rem 0; }
.figures div {
  padding: .5rem .9rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
}
.figures dt { color: var(--quiet); font-size: .8rem; }
.figures dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
}
.card.wide { margin-bottom: 1rem; }
.side { display: flex; flex-wrap: wrap; }
.side .picture { flex: 1 1 18rem; }
.side .picture img { width: 100%; object-fit: contain; }
.side .words { flex: 2 1 20rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
.pair section { flex: 1 1 24rem; }
.words { padding: .9rem 1rem 1rem; }
.picture { background: var(--chip); display: grid; place-items: center; }
.picture img { display: block; max-width: 100%; max-height: 20rem; }
.grid .picture { height: 15rem; }
.grid .picture img { height: 15rem; width: 100%; object-fit: contain; }
.picture.none { padding: 1rem; min-height: 8rem; color: var(--quiet); font-style: italic; text-align: center; }
.split { padding: 0 .5em; border: 1px solid currentcolor; border-radius: 1em; font-size: .85em; }
.split.train { color: var(--accent); }
.split.val { color: var(--warn); }
.split.test { color: var(--yes); }
.captions { margin: .4rem 0 0; padding-left: 1.3rem; }
.captions li { margin-bottom: .5rem; }
.captions li::marker { color: var(--quiet); }
ul.captions li { margin-bottom: .15rem; }
.tokens { margin-top: .15rem; font-size: .78rem; line-height: 1.9; }
.token { padding: .1em .4em; background: var(--chip); border-radius: 4px; white-space: nowrap; }
.token sub { margin-left: .3em; color: var(--quiet); font-size: .8em; vertical-align: baseline; }
.token.special { background: none; color: var(--quiet); padding: 0; }
.token.unknown { background: var(--warn-ground); color: var(--warn); }
blockquote { margin: .1rem 0 1rem; font-size: 1.25rem; line-height: 1.35; }
.verdict { margin-left: .5em; font-weight: 600; }
.verdict.yes { color: var(--yes); }
.verdict.no { color: var(--no); }
.attention { border-top: 1px solid var(--line); padding: .6rem 1rem; overflow-x: auto; }
.attention summary { color: var(--quiet); font-size: .85rem; cursor: pointer; }
.attention img { display: block; margin: .6rem auto 0; width: 100%; max-width: 60rem; min-width: 36rem; }
.plot { margin: 0; }
.plot img { display: block; max-width: min(100%, 44rem); }
.attention img, .plot img { padding: .5rem; background: #fff; border-radius: 6px; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .45rem .8rem .45rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td:last-child { padding-right: 0; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tfoot th, tfoot td { color: var(--quiet); border-top-width: 2px; }
"""
