"""Prefix search: the word that is likeliest over all its alignments, found among the likeliest beginnings.

CTC's prefix beam search (Hannun et al., 2014, arXiv:1408.2873, without its language model): a prefix has two
probabilities, of its alignments that end in a blank and of those that end in its last letter. As wide as there are
prefixes it finds the likeliest word of all.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from trainer.models.charset import BLANK, decode

Ids = tuple[int, ...]

# A letter less likely than this in a frame is not tried there.
_LEAST = 1e-6


def prefix_beam_search(frames: NDArray[np.float32], beam: int) -> list[str]:
    """The words that look likeliest after the last frame, the best first.

    Args:
        frames: float array [T, 27]. Log-probabilities of blank and letters.
        beam: int. Prefixes carried on from frame to frame, at least 1.

    Returns:
        At most `beam` of them.
    """
    prefixes: dict[Ids, tuple[float, float]] = {(): (1.0, 0.0)}
    for frame in np.exp(frames.astype(np.float64)):
        prefixes = _carried_on(prefixes, frame, beam)
    return [decode(np.array([ids]))[0] for ids in prefixes]


def _carried_on(prefixes: dict[Ids, tuple[float, float]], frame: NDArray[np.float64], beam: int) -> dict:
    letters = [int(letter) for letter in np.flatnonzero(frame >= _LEAST) if letter != BLANK]
    chances = frame.tolist()
    on_blank: dict[Ids, float] = defaultdict(float)
    on_letter: dict[Ids, float] = defaultdict(float)
    for prefix, (blank, letter) in prefixes.items():
        on_blank[prefix] += (blank + letter) * chances[BLANK]
        if prefix:
            on_letter[prefix] += letter * chances[prefix[-1]]
        for next_ in letters:
            from_ = blank if prefix and next_ == prefix[-1] else blank + letter
            on_letter[(*prefix, next_)] += from_ * chances[next_]
    both = {prefix: on_blank[prefix] + on_letter[prefix] for prefix in {**on_blank, **on_letter}}
    best = sorted(both, key=both.__getitem__, reverse=True)[:beam]
    # Divided by their sum, so that many frames do not add up to nothing.
    whole = sum(both[prefix] for prefix in best) or 1.0
    return {prefix: (on_blank[prefix] / whole, on_letter[prefix] / whole) for prefix in best}
