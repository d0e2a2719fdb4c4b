"""Labels the paths and URIs that a user names by their shortest distinct ends."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from features.io.uris import is_uri


def make_absolute(path: str) -> str:
    """Returns the absolute path without `..`; a URI unchanged."""
    if is_uri(path):
        return path
    absolute = Path(path).absolute()
    if ".." not in absolute.parts:
        return os.fspath(absolute)
    # `..` after a link leads to the parent of its target. The file's own name stays, even if it is a link.
    return os.fspath(absolute.resolve() if absolute.name == ".." else absolute.parent.resolve() / absolute.name)


def remove_duplicate_roots(roots: Sequence[str]) -> list[str]:
    return list({_normalize(root): root for root in reversed(roots)}.values())[::-1]


def label_roots(roots: Sequence[str]) -> list[str]:
    """Returns the label of each root of `--images`: the shortest end of its path that no other root has."""
    return shorten_paths([_normalize(root) for root in roots], [1] * len(roots))


def shorten_paths(paths: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """Returns an end of each path that no other path has.

    An end has at least as many parts as `lengths` states for its path. Only equal ends become longer, so one more path
    changes no label but those that equal its own.
    """
    parts = [path.split("/") for path in paths]
    used = list(lengths)
    while True:
        labels = ["/".join(part[-length:]) for part, length in zip(parts, used, strict=True)]
        counts = Counter(labels)
        equal = [number for number, label in enumerate(labels) if counts[label] > 1 and label != paths[number]]
        if not equal:
            return labels
        for number in equal:
            used[number] += 1


def _normalize(root: str) -> str:
    return root.rstrip("/") if is_uri(root) else make_absolute(root)
