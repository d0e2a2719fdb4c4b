"""Summarizes the labels of a dataset: their characters and lengths by split."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from features.text.label_rules import describe_character, is_visible
from schemas.tables import SPLITS

_MAX_SHOWN = 20

_log = logging.getLogger("capt.prepare")


def summarize_labels(labels: Iterable[tuple[str, str, int]], dataset: str) -> dict[str, Any]:
    """Counts the labels, given split, label and number of images, and warns of characters that train lacks.

    Returns:
        `labels`: number by split; `label_lengths` and `characters`: number by length or character, by split;
        `unseen_characters`: characters that val or test have and train does not.
    """
    counts = Counter[str]()
    lengths: dict[int, Counter[str]] = {}
    characters: dict[str, Counter[str]] = {}
    for split, label, images in labels:
        counts[split] += images
        lengths.setdefault(len(label), Counter())[split] += images
        for character in label:
            characters.setdefault(character, Counter())[split] += images
    unseen = [
        character
        for character, found in sorted(characters.items())
        if not found["train"] and (found["val"] or found["test"])
    ]
    # Without train images, other datasets may have the characters.
    if unseen and counts["train"]:
        shown = [one if is_visible(one) else describe_character(one) for one in unseen[:_MAX_SHOWN]]
        more = [f"and {len(unseen) - _MAX_SHOWN} more"] if len(unseen) > _MAX_SHOWN else []
        message = "%d characters occur in val or test and not in train: %s. A recognizer cannot learn them."
        _log.warning(f"%s: {message}", dataset, len(unseen), " ".join([*shown, *more]))
    return {
        "labels": _order(counts),
        "label_lengths": {str(length): _order(found) for length, found in sorted(lengths.items())},
        "characters": {character: _order(found) for character, found in sorted(characters.items())},
        "unseen_characters": unseen,
    }


def _order(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the counts that are not 0, in the order of the splits."""
    return {split: counts[split] for split in SPLITS if counts.get(split)}
