"""Predicts each word of a reference from the true words before it, as in training (teacher forcing).

reference → token IDs → logits of every next token → the most probable tokens, beside the true ones
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.text.tokenizer import Tokenizer
from schemas.table_config import PAD
from schemas.terminal.console import Printer
from trainer.data.held_out_images import HeldOutImages
from trainer.data.table_selection import TrainingTables
from trainer.reports.markup import Html, card, element, label, section
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.directory import TRANSFORM

_BATCH = 64
MAX_SHOWN = 50  # captions on the page


@dataclass(frozen=True)
class ForcedCaption:
    """A reference and the words that the model predicts with it; both end with the end token.

    Word i of `predicted` follows the first i − 1 words of `words`, not those of `predicted`.
    """

    image: str
    words: tuple[str, ...]
    predicted: tuple[str, ...]

    @property
    def is_correct(self) -> list[bool]:
        """Whether each predicted word is the true one."""
        return [word == predicted for word, predicted in zip(self.words, self.predicted, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the words as the result of `capt evaluate` lists them."""
        return {"image": self.image, "true": list(self.words), "predicted": list(self.predicted)}

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> "list[ForcedCaption]":
        """Returns the captions in the summary of an evaluation; none without `--teacher-forced`."""
        return [
            cls(one["image"], tuple(one["true"]), tuple(one["predicted"])) for one in summary.get("teacher_forced", ())
        ]


def predict_next_words(
    run: CaptionerRun, tables: TrainingTables, held_out: HeldOutImages, count: int
) -> list[ForcedCaption]:
    """Predicts the words of the first reference of `count` images that are evenly spaced over a split."""
    numbers = held_out.select_evenly(count)
    tokenizer, labels, captions = Tokenizer(run.path / TRANSFORM), held_out.labels, []
    for start in range(0, len(numbers), _BATCH):
        batch = numbers[start : start + _BATCH]
        tokens = _pad(tokenizer.tokenize([labels[number] for number in batch]).rows(), run)
        predicted = _predict(run, tables.features.read(held_out.rows[batch]), tokens[:, :-1])
        for number, true, guess in zip(batch, tokens[:, 1:], predicted, strict=True):
            is_real = true != PAD
            image = tables.name_image(*held_out.names[number])
            captions.append(ForcedCaption(image, _to_words(true[is_real], run), _to_words(guess[is_real], run)))
    return captions


def next_word_accuracy(captions: Sequence[ForcedCaption]) -> float:
    """Returns the fraction of the words, end tokens included, that are predicted correctly."""
    return float(np.mean([correct for caption in captions for correct in caption.is_correct]))


def print_forced_captions(printer: Printer, captions: Sequence[ForcedCaption]) -> None:
    """Prints the true and the predicted words one above the other; a dot stands for a correct word."""
    printer.line(f"words predicted from the true words before them: {next_word_accuracy(captions):.1%} correct", "bold")
    for caption in captions:
        pairs = zip(caption.words, caption.predicted, caption.is_correct, strict=True)
        columns = [(word, "·" if correct else predicted) for word, predicted, correct in pairs]
        widths = [max(map(len, column)) for column in columns]
        printer.line(caption.image)
        for name, row in zip(("true", "predicted"), zip(*columns, strict=True), strict=True):
            cells = [word.ljust(width) for word, width in zip(row, widths, strict=True)]
            printer.line(f"  {name:<9}  {' '.join(cells).rstrip()}")
    printer.line("")


def forced_section(captions: Sequence[ForcedCaption], images: Mapping[str, bytes | None]) -> Html:
    """Builds the section of a page with the first captions: each predicted word below the true one.

    `images` are the encoded images by name. Wrong predictions are marked.
    """
    if not captions:
        return Html()
    shown = captions[:MAX_SHOWN]
    lead = f"Each word is predicted from the true words before it: {next_word_accuracy(captions):.1%} are correct."
    if len(shown) < len(captions):
        lead += f" The first {len(shown)} of {len(captions):,} captions are shown."
    cards = (
        card(images.get(one.image), " ".join(one.words), label(element("code", one.image)), _word_table(one))
        for one in shown
    )
    return section("Next words", element("p", lead, class_="quiet"), *cards)


def _word_table(caption: ForcedCaption) -> Html:
    predicted = (
        word if correct else element("span", word, class_="wrong")
        for word, correct in zip(caption.predicted, caption.is_correct, strict=True)
    )
    rows = [
        element("tr", element("th", name, scope="row"), *(element("td", word, dir="auto") for word in words))
        for name, words in (("true", caption.words), ("predicted", predicted))
    ]
    return element("div", element("table", *rows, class_="next-words"), class_="scroll")


def _pad(rows: Sequence[NDArray[np.int64]], run: CaptionerRun) -> NDArray[np.int32]:
    """Returns token IDs int32 [N, T]; a caption is cut where the model's positions end."""
    limit = run.metadata.config.max_caption_length
    cut = [row if limit is None else row[: limit + 2] for row in rows]
    tokens = np.full((len(cut), max(map(len, cut))), PAD, np.int32)
    for number, row in enumerate(cut):
        tokens[number, : len(row)] = row
    return tokens


def _predict(run: CaptionerRun, features: NDArray[Any], tokens: NDArray[np.int32]) -> NDArray[np.int64]:
    from features.runtime.keras_settings import ops

    logits = run.model({"features": features, "tokens": tokens}, training=False)
    return np.asarray(ops.convert_to_numpy(logits).argmax(axis=-1), np.int64)


def _to_words(ids: NDArray[np.integer[Any]], run: CaptionerRun) -> tuple[str, ...]:
    return tuple(run.vocabulary[token] for token in ids)
