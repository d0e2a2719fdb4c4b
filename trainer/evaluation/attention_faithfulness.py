"""Measures whether the words of generated captions depend on the image region that the model attends to.

For each word, the region with the most attention is blanked in the image, features are extracted again, and the drop of
the word's log-probability is compared with the drop for a random region of the same size. It is the deletion test of
Petsiuk et al. (2018, arXiv:1806.07421) with one step, for each word under teacher forcing with the caption itself.

    caption, attention → regions per word → blanked images → extractor → log-probabilities → drops by class of words
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.extractors.extraction import EncodedImage
from features.images.decode import open_image
from features.images.resize import Resizer
from features.inputs.file_reference import read_source_image
from schemas.errors import CaptError, RecordError, UsageError
from schemas.terminal.progress import progress_bar
from trainer.data.held_out_images import HeldOutImages
from trainer.data.table_selection import TrainingTables
from trainer.decoding.generation import GenerationConfig
from trainer.evaluation.bootstrap import MetricSamples, bootstrap_intervals
from trainer.evaluation.image_regions import Grid, Region, blank_region
from trainer.evaluation.word_classes import OTHER, classify_word, word_classes
from trainer.metrics.caption_tokenizer import mark_wrong_words
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.run import DECODE_BATCH

# Classes of words that name what an image shows.
_CONTENT = {"colours", "background", "verbs", "nouns"}


@dataclass(frozen=True)
class WordEffect:
    """A word of a generated caption, and how much blanking a region lowers its log-probability (natural logarithm)."""

    image: int
    word: str
    is_wrong: bool  # no reference of the image contains it
    attended_drop: float
    random_drop: float


def measure_attention(
    run: CaptionerRun,
    tables: TrainingTables,
    held_out: HeldOutImages,
    decoding: GenerationConfig,
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Measures the effect of blanked regions on the captions of `count` images that are evenly spaced over a split.

    Returns:
        `images`; `unreadable`, the images whose file is missing, has changed or fails; `grid` and `region`, the
        locations on each side of the image and of a region; and `words`, the result of `summarize_effects`.

    Raises:
        UsageError: The model has no attention.
        CaptError: The locations do not form a grid, or no image can be captioned again.
    """
    numbers = held_out.select_evenly(count)
    pictures = _plan_pictures(run, tables, held_out, numbers, decoding, np.random.default_rng(seed))
    effects: list[WordEffect] = []
    measured: list[Grid] = []
    with progress_bar("blanking attended regions", len(numbers), "images") as show:
        for done, (picture, found) in enumerate(_compute_effects(run, pictures), start=1):
            if found is not None:
                measured.append(picture.grid)
                effects += found
            show(done, "")
    if not measured:
        raise CaptError("no image can be captioned again", location="--attention")
    return {
        "images": len(measured),
        "unreadable": len(numbers) - len(measured),
        "grid": measured[0].side,
        "region": measured[0].region_side,
        "words": summarize_effects(effects),
    }


def summarize_effects(effects: Sequence[WordEffect]) -> dict[str, dict[str, Any]]:
    """Summarizes effects for all words, each class of words, and for correct and wrong content words.

    Returns:
        Per group `words` (a number), and unless there are none the mean `attended_drop` and `random_drop`, their
        `difference` with its 95% confidence `interval` (resampled by image), and `attended_greater`, the fraction of
        words for which the attended region lowers the log-probability more than the random one.
    """
    groups = {"all": list(effects)}
    for name in (*word_classes(), OTHER):
        groups[name] = [effect for effect in effects if classify_word(effect.word) == name]
    content = [effect for effect in effects if classify_word(effect.word) in _CONTENT]
    groups["correct content words"] = [effect for effect in content if not effect.is_wrong]
    groups["wrong content words"] = [effect for effect in content if effect.is_wrong]
    return {name: _summarize(group) for name, group in groups.items()}


@dataclass(frozen=True)
class _Picture:
    """A captioned image, with the most attended and a random region for each word of the caption."""

    number: int
    row: Mapping[str, Any]  # of `schemas.tables.CATALOG`
    words: tuple[str, ...]
    are_wrong: Sequence[bool]
    attended: Sequence[Region]
    others: Sequence[Region]
    resizer: Resizer
    grid: Grid

    @cached_property
    def blanked(self) -> list[Region | None]:
        """The distinct regions that are blanked; the first entry, None, is the unchanged image."""
        return list(dict.fromkeys([None, *self.attended, *self.others]))

    @cached_property
    def data(self) -> bytes | None:
        """The encoded image; None if it is missing or has changed. It is read once, even if it is missing."""
        return read_source_image(self.row)

    @cached_property
    def image(self) -> Image.Image:
        """The decoded image."""
        if self.data is None:
            raise RecordError("read", "unreadable", "it is missing or has changed")
        return open_image(self.data)

    def encode(self, region: Region | None) -> bytes:
        """Returns the image with a blanked region as PNG, so that only the region differs."""
        image = self.image if region is None else blank_region(self.image, self.resizer, self.grid, region)
        data = BytesIO()
        image.save(data, "PNG", compress_level=1)
        return data.getvalue()

    def compute_effects(self, scores: Mapping[Region | None, NDArray[np.float32]]) -> list[WordEffect]:
        """Returns the effect for each word, from the log-probabilities of all words with each blanked region."""
        before = scores[None]
        return [
            WordEffect(
                self.number,
                word,
                self.are_wrong[place],
                float(before[place] - scores[self.attended[place]][place]),
                float(before[place] - scores[self.others[place]][place]),
            )
            for place, word in enumerate(self.words)
        ]


def _plan_pictures(
    run: CaptionerRun,
    tables: TrainingTables,
    held_out: HeldOutImages,
    numbers: NDArray[np.int64],
    decoding: GenerationConfig,
    generator: np.random.Generator,
) -> Iterator[_Picture]:
    """Captions the images with these numbers, in order, and selects the regions to blank."""
    for start in range(0, len(numbers), DECODE_BATCH):
        batch = numbers[start : start + DECODE_BATCH]
        captions = run.caption_features(tables.features.read(held_out.rows[batch]), decoding, batch.tolist())
        for number, caption in zip(batch.tolist(), captions, strict=True):
            if caption.attention is None:
                raise no_attention(run)
            grid, name = Grid.from_locations(caption.attention.shape[-1]), held_out.names[number]
            attended = list(map(grid.find_most_attended, caption.attention))
            yield _Picture(
                number=number,
                row=held_out.catalog[name],
                words=caption.words,
                are_wrong=mark_wrong_words(caption.words, held_out.references[name]),
                attended=attended,
                others=[grid.draw_other(region, generator) for region in attended],
                resizer=run.resizer,
                grid=grid,
            )


def no_attention(run: CaptionerRun) -> UsageError:
    """Returns the error for a run whose model has no attention."""
    hint = "Omit the option, or evaluate a run of another model."
    return UsageError(f"the model {run.metadata.model} has no attention", location="--attention", hint=hint)


def _compute_effects(
    run: CaptionerRun, pictures: Iterable[_Picture]
) -> Iterator[tuple[_Picture, list[WordEffect] | None]]:
    """Yields each image with its effects; None if it fails."""
    pending: deque[_Picture] = deque()

    def list_blanked() -> Iterator[tuple[EncodedImage, Sequence[str]]]:
        for picture in pictures:
            pending.append(picture)
            for region in picture.blanked:
                yield EncodedImage(b"", partial(picture.encode, region)), picture.words

    scores: dict[Region | None, NDArray[np.float32]] = {}
    seen = 0
    for result in run.score_words(list_blanked()):
        picture = pending[0]
        region, seen = picture.blanked[seen], seen + 1
        if not isinstance(result, RecordError):
            scores[region] = result
        if seen == len(picture.blanked):
            yield picture, picture.compute_effects(scores) if len(scores) == seen else None
            pending.popleft()
            scores, seen = {}, 0


def _summarize(effects: Sequence[WordEffect]) -> dict[str, Any]:
    if not effects:
        return {"words": 0}
    attended, random = (
        np.array([getattr(effect, name) for effect in effects]) for name in ("attended_drop", "random_drop")
    )
    _, inverse = np.unique([effect.image for effect in effects], return_inverse=True)
    sums = np.stack([np.bincount(inverse, attended - random), np.bincount(inverse).astype(np.float64)], axis=1)
    samples = MetricSamples(("difference",), sums, lambda total, _: total[..., :1] / total[..., 1:])
    return {
        "words": len(effects),
        "attended_drop": float(attended.mean()),
        "random_drop": float(random.mean()),
        **samples.metrics(),
        "interval": bootstrap_intervals(samples)["difference"],
        "attended_greater": float((attended > random).mean()),
    }
