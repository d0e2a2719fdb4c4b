"""Builds HTML pages that are one file each: images and styles are inlined, and a page loads no files and runs no code.

`element` escapes every text, because captions and names may contain markup.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

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
    style = files("trainer.reports").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Markup that was inserted by mistake can neither load nor run anything.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{join(body)}\n</body>\n</html>\n"
    )


def header(
    title: str, lead: object = "", notices: Iterable[str] = (), values: Mapping[str, object] | None = None
) -> Html:
    """Builds the top of a page: title, summary sentence, notices, and a few labeled values."""
    items = [element("div", element("dt", name), element("dd", value)) for name, value in (values or {}).items()]
    return join(
        [
            element("header", element("h1", title), element("p", lead, class_="lead") if lead else ""),
            *(element("p", notice, class_="notice", role="note") for notice in notices),
            element("dl", *items, class_="values") if items else "",
        ]
    )


def section(title: str, *content: object) -> Html:
    """Builds a section with a heading; nothing if the content is empty."""
    body = join(content)
    return element("section", element("h2", title), body) if body else Html()


def table(heads: Sequence[str], rows: Sequence[Html]) -> Html:
    """Builds a table of numbers; nothing without rows."""
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
    """Joins words or characters, and marks the wrong ones."""
    marked = (
        element("span", part, class_="wrong") if is_wrong else part for part, is_wrong in zip(parts, wrong, strict=True)
    )
    return join(marked, separator)


def thumbnail(image: bytes | None, alt: str) -> Html:
    """Builds a small version of an encoded image, or the reason why it cannot be shown; None if it is not available."""
    if image is None:
        return element("div", "the image is not available", class_="image none")
    try:
        return element("div", inline_image(encode_thumbnail(image, THUMBNAIL_SIDE), alt), class_="image")
    except Exception as error:
        reason = to_record_error("decode", error).reason
        return element("div", f"the image cannot be shown: {reason}", class_="image none")


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
    """Builds a foldable figure of attention maps (PNG or JPEG); nothing without maps."""
    if figure is None:
        return Html()
    image = inline_image(figure, "attention map of each word")
    return element("details", element("summary", "Attention maps"), image, class_="attention", open="")
