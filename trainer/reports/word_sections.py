"""Renders the use of words in a store as parts of an HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.tables import SPLITS
from trainer.data.word_search import FoundCaption, WordUse
from trainer.reports.markup import Html, element, join, label, row, table, thumbnail


@dataclass(frozen=True)
class ShownWord:
    """A word with its example captions and their encoded images; None for an image that can no longer be read."""

    use: WordUse
    examples: Sequence[tuple[FoundCaption, bytes | None]]


def word_anchor(word: str) -> str:
    """Returns the ID of the section of a word, for links within a page."""
    return f"word-{word.encode(errors='replace').hex()}"


def word_section(shown: ShownWord) -> Html:
    """Builds the section of a word: whether it is in the vocabulary, numbers by split, and examples."""
    use = shown.use
    ids = "in the vocabulary" if use.in_vocabulary else f"not in the vocabulary: {use.reason}"
    rows = [row(split, *(f"{count:,}" for count in use.counts(split))) for split in SPLITS if use.captions[split]]
    cards = [_card(*one) for one in shown.examples]
    body = [
        element("h3", element("bdi", use.text), id=word_anchor(use.text)),
        element("p", ids, class_="quiet"),
        table(("split", "occurrences", "captions", "images"), rows) or element("p", "In no caption.", class_="quiet"),
        element("div", *cards, class_="grid") if cards else "",
    ]
    return join(body)


def _card(found: FoundCaption, image: bytes | None) -> Html:
    split = element("span", found.split, class_=f"split {found.split}")
    heading = label(element("code", found.image_id), " ", split)
    words = element("div", heading, element("p", found.caption, dir="auto"), class_="words")
    return element("article", thumbnail(image, f"image {found.image_id}"), words, class_="card")
