"""Pages are one file, and texts never become markup."""

from io import BytesIO

from PIL import Image

from trainer.reports.markup import (
    Html,
    attention_details,
    document,
    element,
    escape,
    header,
    mark_wrong,
    row,
    section,
    table,
    thumbnail,
)


def encode(kind: str = "PNG", size: tuple[int, int] = (900, 600)) -> bytes:
    data = BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(data, kind)
    return data.getvalue()


def test_a_document_is_one_file_that_loads_and_runs_nothing() -> None:
    page = document("a <title>", section("Images", thumbnail(encode(), "a star")))
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert "a &lt;title&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_text_is_escaped_once_and_can_be_encoded() -> None:
    text = '<b a="1">\'&\ud800'
    assert escape(text) == "&lt;b a=&quot;1&quot;&gt;&#x27;&amp;?"
    assert escape(escape(text)) == escape(text)
    assert element("p", text, title=text) == f'<p title="{escape(text)}">{escape(text)}</p>'
    assert element("p", element("b", "x"), class_="wide") == '<p class="wide"><b>x</b></p>'


def test_a_thumbnail_is_small_or_gives_the_reason_why_it_is_missing() -> None:
    assert len(thumbnail(encode(size=(4000, 3000)), "large")) < 20_000
    assert "<img" not in thumbnail(None, "missing")
    assert "truncated" in thumbnail(encode()[:-30], "cut")


def test_a_figure_is_inlined_unchanged() -> None:
    assert "data:image/jpeg;base64," in attention_details(encode("JPEG"))
    assert "data:image/png;base64," in attention_details(encode())
    assert attention_details(None) == ""


def test_empty_parts_are_left_out() -> None:
    assert section("Images", "", Html()) == ""
    assert "<dl" not in header("title")
    assert table(("a",), []) == ""
    assert "<dt>images</dt><dd>7</dd>" in header("title", values={"images": 7})


def test_a_row_takes_values_and_complete_cells() -> None:
    cell = element("td", "2", class_="best")
    assert row("<a>", 1, cell) == '<tr><th scope="row">&lt;a&gt;</th><td>1</td><td class="best">2</td></tr>'


def test_wrong_words_are_marked() -> None:
    assert mark_wrong(["a", "<"], [False, True]) == 'a <span class="wrong">&lt;</span>'
