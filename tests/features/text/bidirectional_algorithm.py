"""The Unicode bidirectional algorithm (UAX #9) for one line from right to left, without brackets.

It has the rules W1 to W7, N1, N2, I1, I2 and L2, each as the standard states it, for texts without embeddings, isolates
and line ends. It is independent of `features.text.visual_order`.
"""

import re
import unicodedata
from itertools import pairwise

STRONG = ("R", "L", "AL")
NEUTRAL = ("B", "S", "WS", "ON")


def display(text: str) -> str:
    """Returns the characters of a text from left to right."""
    classes = resolve_neutral(resolve_weak([unicodedata.bidirectional(one) for one in text]))
    levels = [1 if one == "R" else 2 for one in classes]  # I2
    shown = list(range(len(text)))
    for level in (2, 1):  # L2
        start = 0
        while start < len(shown):
            end = start
            while end < len(shown) and levels[shown[end]] >= level:
                end += 1
            shown[start:end] = reversed(shown[start:end])
            start = max(end, start + 1)
    return "".join(text[position] for position in shown)


def resolve_weak(classes: list[str]) -> list[str]:
    found = list(classes)
    for i, one in enumerate(found):  # W1
        if one == "NSM":
            found[i] = found[i - 1] if i else "R"
    for i, one in enumerate(found):  # W2
        if one == "EN" and last_strong(found[:i]) == "AL":
            found[i] = "AN"
    found = ["R" if one == "AL" else one for one in found]  # W3
    for i in range(1, len(found) - 1):  # W4
        before, one, after = found[i - 1 : i + 2]
        if before == after and ((one == "ES" and before == "EN") or (one == "CS" and before in ("EN", "AN"))):
            found[i] = before
    for step in (1, -1):  # W5
        order = range(len(found))[::step]
        for i, j in pairwise(order):
            if found[j] == "ET" and found[i] == "EN":
                found[j] = "EN"
    found = ["ON" if one in ("ES", "ET", "CS") else one for one in found]  # W6
    return ["L" if one == "EN" and last_strong(found[:i]) == "L" else one for i, one in enumerate(found)]  # W7


def resolve_neutral(classes: list[str]) -> list[str]:
    """N1, N2: neutral characters between two of one direction have this direction, others that of the line."""
    directions = "".join("l" if one == "L" else "n" if one in NEUTRAL else "r" for one in classes)
    inner = re.sub("(?<=l)n+(?=l)", lambda found: "l" * len(found[0]), directions)
    return [
        ("L" if direction == "l" else "R") if one in NEUTRAL else one
        for one, direction in zip(classes, inner, strict=True)
    ]


def last_strong(classes: list[str]) -> str:
    return next((one for one in reversed(classes) if one in STRONG), "R")
