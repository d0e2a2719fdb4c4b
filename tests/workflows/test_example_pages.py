"""Pages show all given values, and captions never become markup."""

import base64
from html.parser import HTMLParser
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workflows.example_pages import Example, ExampleCaption, build_examples_page

VOID = {"meta", "img", "br"}
NASTY = '<script>alert("1")</script> & \' " </p> <img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Parses the tags, attributes, texts and images of a page; fails if tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def pictures(self) -> list[Image.Image]:
        sources = [attrs["src"] for tag, attrs in self.tags if tag == "img"]
        return [Image.open(BytesIO(base64.b64decode(source.split("base64,")[1]))) for source in sources]

    def has(self, tag: str, **attrs: str) -> bool:
        wanted = {name.strip("_"): value for name, value in attrs.items()}
        return any(name == tag and wanted.items() <= given.items() for name, given in self.tags)


def encoded(form: str = "PNG", size: tuple[int, int] = (640, 480)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(file, form)
    return file.getvalue()


def assert_inert(page: Page) -> None:
    """Asserts that the page loads and runs nothing."""
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "iframe", "object", "embed", "link", "base", "form", "svg"})
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#"), "links lead to parts of the page"
        assert attrs.get("src", "data:image/").startswith("data:image/")


def test_an_example_shows_its_image_captions_split_and_tokens():
    sentence = ExampleCaption("A dog runs.", (2, 5, 1, 3), ("<start>", "dog", "<unk>", "<end>"))
    examples = [Example(encoded(), "000042", "val", (sentence, ExampleCaption("Dogs!")))]
    page = Page(build_examples_page("my photos", examples, {"images": 7, "captions": 35}))
    for shown in ("my photos", "000042", "val", "A dog runs.", "Dogs!", "images 7", "captions 35"):
        assert shown in page.text
    assert "<start> 2 dog 5 <unk> 1 <end> 3" in page.text
    assert page.has("span", class_="token unknown")
    assert page.has("span", class_="token special")
    assert_inert(page)


def test_images_are_inlined_as_thumbnails():
    examples = [Example(encoded(size=(4000, 3000)), str(i), "train", ()) for i in range(3)]
    text = build_examples_page("large", examples, {})
    pictures = Page(text).pictures
    assert [picture.format for picture in pictures] == ["JPEG"] * 3
    assert all(max(picture.size) <= 400 for picture in pictures)
    assert len(text) < 50_000


def test_a_missing_or_corrupt_image_does_not_prevent_the_page():
    lost = Example(None, "1", "train", (ExampleCaption("Gone."),))
    cut = Example(encoded()[:-30], "2", "train", (ExampleCaption("Cut."),))
    page = Page(build_examples_page("damaged", [lost, cut], {}))
    assert "not available" in page.text
    assert "truncated" in page.text
    assert "Gone." in page.text
    assert "Cut." in page.text


def test_a_page_without_examples_states_it():
    assert "no examples" in Page(build_examples_page("nothing", [], {})).text


def test_tokens_without_their_words_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        build_examples_page("odd", [Example(None, "1", "train", (ExampleCaption("a", (2, 3), ("<start>",)),))], {})


def test_no_text_becomes_markup():
    sentence = ExampleCaption(NASTY, (7,), (NASTY,))
    text = build_examples_page(NASTY, [Example(None, NASTY, NASTY, (sentence,))], {NASTY: NASTY})
    page = Page(text)
    assert_inert(page)
    assert page.texts.count(NASTY) >= 6
    assert "<script" not in text
    assert "default-src 'none'" in text


@given(st.text(alphabet=st.characters(), max_size=60))
@settings(deadline=None)
def test_any_caption_can_be_shown_and_written(caption):
    examples = [Example(None, caption, "train", (ExampleCaption(caption),))]
    text = build_examples_page("any", examples, {})
    page = Page(text.encode().decode())
    assert_inert(page)
    if caption.isprintable():
        assert caption.encode(errors="replace").decode() in "".join(page.texts)


def test_a_page_reads_on_a_phone_and_at_night():
    text = build_examples_page("my photos", [], {})
    assert Page(text).has("meta", name="viewport")
    assert "prefers-color-scheme: dark" in text
    assert text.startswith("<!doctype html>")
