from io import BytesIO

from PIL import Image

from trainer.reports.markup import document, escaped, looked, picture, section, tiles


def encoded(kind="PNG", size=(900, 600)):
    data = BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(data, kind)
    return data.getvalue()


def test_a_document_is_one_file_that_loads_and_runs_nothing():
    page = document("a <title>", section("Images", picture(encoded(), "a star")))
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert "a &lt;title&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_text_cannot_become_markup_and_can_be_written():
    assert escaped('<b a="1">\'&\ud800') == "&lt;b a=&quot;1&quot;&gt;&#x27;&amp;?"


def test_a_picture_is_small_or_says_why_there_is_none():
    assert len(picture(encoded(size=(4000, 3000)), "large")) < 20_000
    assert "not at hand" in picture(None, "lost")
    assert "cannot be shown: truncated" in picture(encoded()[:-30], "cut")


def test_a_figure_is_inlined_as_it_is():
    assert "data:image/jpeg;base64," in looked(encoded("JPEG"))
    assert "data:image/png;base64," in looked(encoded())


def test_nothing_stands_under_an_empty_heading():
    assert section("Images", "") == ""
    assert tiles({}) == ""
    assert "<dt>images</dt><dd>7</dd>" in tiles({"images": 7})
