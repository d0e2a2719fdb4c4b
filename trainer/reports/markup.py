"""Builds HTML pages that are one file each: images and styles are inlined, and a page loads and runs nothing.

`element` escapes every text, because captions and names may contain markup.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

from features.images.decode import encode_thumbnail
from schemas.errors import to_record_error

THUMBNAIL_SIDE = 400  # pixels of the longer side: sharp at the width of a card on a phone

_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class Html(str):
    """Markup that is inserted into a page unchanged."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Returns a value as markup. Everything but `Html` is escaped.

    Lone surrogates, which JSON permits, become question marks: they cannot be encoded as UTF-8.
    """
    return value if isinstance(value, Html) else Html(html.escape(str(value).encode(errors="replace").decode()))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Builds an element. Content and attribute values are escaped; a trailing `_` of an attribute name is dropped."""
    values = "".join(f' {name.removesuffix("_")}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{values}>{join(content)}</{tag}>")


def join(parts: Iterable[object], separator: str = "") -> Html:
    """Joins escaped parts."""
    return Html(separator.join(map(escape, parts)))


def document(title: str, *body: object) -> str:
    """Returns a complete HTML document, to be written as UTF-8."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Markup that was inserted by mistake can neither load nor run anything.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{join(body)}\n</body>\n</html>\n"
    )


def header(
    title: str, lead: object = "", notices: Iterable[str] = (), values: Mapping[str, object] | None = None
) -> Html:
    """Builds the top of a page: title, summary sentence, notices, and a few labeled values."""
    return join(
        [
            element("header", element("h1", title), element("p", lead, class_="lead") if lead else ""),
            *(element("p", notice, class_="notice", role="note") for notice in notices),
            value_list(values or {}),
        ]
    )


def value_list(values: Mapping[str, object]) -> Html:
    """Builds a list of labeled values; nothing if there are none."""
    items = [element("div", element("dt", label), element("dd", value)) for label, value in values.items()]
    return element("dl", *items, class_="figures") if items else Html()


def section(title: str, *content: object) -> Html:
    """Builds a section with a heading; nothing if the content is empty."""
    body = join(content)
    return element("section", element("h2", title), body) if body else Html()


def table(heads: Sequence[str], rows: Sequence[Html]) -> Html:
    """Builds a table of numbers; nothing if there are no rows."""
    if not rows:
        return Html()
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    return element("div", element("table", head, element("tbody", *rows), class_="numbers"), class_="scroll")


def row(name: str, *cells: object) -> Html:
    """Builds a table row with a heading. A cell that is `Html` is a complete `td` element."""
    values = (cell if isinstance(cell, Html) else element("td", cell) for cell in cells)
    return element("tr", element("th", name, scope="row"), *values)


def card(image: bytes | None, alt: str, *body: object, footer: object = "") -> Html:
    """Builds a wide card: the image on one side, the body on the other, and a footer below both."""
    sides = element("div", thumbnail(image, alt), element("div", *body, class_="words"), class_="side")
    return element("article", sides, footer, class_="card wide")


def label(*content: object) -> Html:
    """Builds a small heading inside a card."""
    return element("p", *content, class_="label")


def caption_list(captions: Iterable[str]) -> Html:
    """Builds a list of captions, each in the writing direction of its script."""
    items = [element("li", element("span", caption, dir="auto")) for caption in captions]
    return element("ul", *items, class_="captions")


def mark_wrong(parts: Iterable[str], wrong: Iterable[bool], separator: str = " ") -> Html:
    """Joins words or characters, and marks those that are wrong."""
    marked = (
        element("span", part, class_="wrong") if is_wrong else part for part, is_wrong in zip(parts, wrong, strict=True)
    )
    return join(marked, separator)


def thumbnail(image: bytes | None, alt: str) -> Html:
    """Builds a small version of an encoded image, or the reason why there is none.

    Args:
        image: The encoded image; None if its file is not available.
        alt: Description of the image.
    """
    if image is None:
        return element("div", "the image is not available", class_="picture none")
    try:
        return element("div", inline_image(encode_thumbnail(image, THUMBNAIL_SIDE), alt), class_="picture")
    except Exception as error:
        reason = to_record_error("decode", error).reason
        return element("div", f"the image cannot be shown: {reason}", class_="picture none")


def inline_image(data: bytes, alt: str) -> Html:
    """Builds an image element that contains a PNG or JPEG."""
    kind = next(kind for signature, kind in _SIGNATURES.items() if data.startswith(signature))
    return Html(f'<img src="data:{kind};base64,{base64.b64encode(data).decode()}" alt="{escape(alt)}">')


def plot(data: bytes, alt: str, note: str = "") -> Html:
    """Builds a figure with a PNG or JPEG plot and an optional note."""
    return element(
        "figure", inline_image(data, alt), element("figcaption", note, class_="quiet") if note else "", class_="plot"
    )


def attention_details(figure: bytes | None) -> Html:
    """Builds a foldable figure of attention maps (PNG or JPEG); nothing if there is none."""
    if figure is None:
        return Html()
    image = inline_image(figure, "attention map of each word")
    return element("details", element("summary", "Attention maps"), image, class_="attention", open="")


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
