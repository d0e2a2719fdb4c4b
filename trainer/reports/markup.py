"""Markup: the parts of HTML pages that are one file each.

Pictures are inlined, styles too, and nothing is fetched or run: the pages read the same from a mail or a stick. Every
text is escaped, for captions may hold anything.
"""

import base64
import html
from collections.abc import Mapping

from features.images.decode import encode_thumbnail
from schemas.errors import to_record_error

THUMBNAIL = 400  # pixels of the longer side: sharp at the width of a card on a phone

_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def document(title: str, body: str) -> str:
    """A complete HTML document, to be written as UTF-8.

    Args:
        title: str. The page's name.
        body: str. Markup.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Even a caption that slipped past the escaping could load and run nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """A part of the page under its heading; nothing where the content, which is markup, is empty."""
    return f"<section><h2>{escaped(title)}</h2>{content}</section>" if content else ""


def tiles(figures: Mapping[str, object]) -> str:
    """A few numbers to take away, label over value; nothing where there are none."""
    each = "".join(f"<div><dt>{escaped(label)}</dt><dd>{escaped(value)}</dd></div>" for label, value in figures.items())
    return f'<dl class="figures">{each}</dl>' if each else ""


def spoken(text: str) -> str:
    """A caption, in whichever direction its script runs."""
    return f'<span dir="auto">{escaped(text)}</span>'


def picture(image: bytes | None, alt: str) -> str:
    """A small picture of an encoded image, or why there is none.

    Args:
        image: bytes or None. The encoded image; None where its file is not at hand.
        alt: str. What it shows, in words.
    """
    if image is None:
        return '<div class="picture none">the image is not at hand</div>'
    try:
        return f'<div class="picture">{inline(encode_thumbnail(image, THUMBNAIL), alt)}</div>'
    except Exception as error:
        reason = to_record_error("decode", error).reason
        return f'<div class="picture none">the image cannot be shown: {escaped(reason)}</div>'


def inline(data: bytes, alt: str) -> str:
    """A PNG or JPEG as it is, within the page."""
    kind = next(kind for signature, kind in _SIGNATURES.items() if data.startswith(signature))
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:{kind};base64,{encoded}" alt="{escaped(alt)}">'


def looked(figure: bytes) -> str:
    """A figure of where a model looked at each word, which a reader may fold away.

    Args:
        figure: bytes. A PNG or JPEG.
    """
    drawn = inline(figure, "where the model looked at each word")
    return f'<details class="attention" open><summary>Where it looked</summary>{drawn}</details>'


def escaped(value: object) -> str:
    """The value as text that is safe between tags and in quoted attributes.

    Lone surrogates, which JSON can smuggle into a caption, become question marks: they cannot be written as UTF-8.
    """
    return html.escape(str(value).encode(errors="replace").decode())


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
.wrong { color: var(--no); text-decoration: underline wavy; text-underline-offset: .2em; }
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
.scroll { overflow-x: auto; }
.numbers td { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.numbers thead th { white-space: normal; vertical-align: bottom; }
.numbers thead th + th { text-align: right; }
.numbers .best { font-weight: 700; color: var(--yes); }
.said th { font-weight: 400; color: var(--quiet); font-size: .85rem; }
.said td:last-child, .changes td:last-child { text-align: left; white-space: normal; }
details.changes { margin-bottom: .4rem; }
details.changes summary { cursor: pointer; }
tfoot th, tfoot td { color: var(--quiet); border-top-width: 2px; }
"""
