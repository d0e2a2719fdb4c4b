"""Benchmark: how often the test of train labels chooses the wrong `language_model`, on made labels of known origin.

    python benchmarks/label_dependence.py [--draws 200] [--json]

The labels of `SETS` are drawn anew for every test. In those for `none`, characters do not depend on their neighbors, or
tell next to nothing about them; in those for `words` they do.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np

from features.synthetic.captchas.labels import load_default_words
from schemas.choices import LanguageModel
from trainer.data.label_dependence import measure_dependence

CYRILLIC = "".join(map(chr, range(ord("а"), ord("я") + 1))) + "ё"
IDEOGRAPHS = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
DAYS = 365 * 25


@dataclass(frozen=True)
class LabelSet:
    """Made labels.

    Args:
        name: Name in the table.
        expected: The right choice.
        draw: Returns new labels.
    """

    name: str
    expected: LanguageModel
    draw: Callable[[np.random.Generator], list[str]]


def draw_characters(
    characters: str, lengths: Sequence[int], count: int, weights: Sequence[float] | None = None
) -> Callable[[np.random.Generator], list[str]]:
    """Draws labels of independent characters; `weights` are those of the characters, equal by default."""
    probabilities = np.array(weights or [1] * len(characters), float)
    probabilities /= probabilities.sum()

    def draw(rng: np.random.Generator) -> list[str]:
        drawn = rng.choice(len(characters), (count, max(lengths)), p=probabilities)
        rows = ["".join(characters[number] for number in row) for row in drawn]
        return [row[:length] for row, length in zip(rows, rng.choice(lengths, count), strict=True)]

    return draw


def draw_without_repeats(characters: str, length: int, count: int) -> Callable[[np.random.Generator], list[str]]:
    """Draws labels of which none has a character twice."""
    return lambda rng: ["".join(rng.permutation(list(characters))[:length]) for _ in range(count)]


def draw_numbers(count: int) -> Callable[[np.random.Generator], list[str]]:
    """Draws numbers of independent digits, whose first digits are always 2, 0, and 1 or 2."""
    rest = draw_characters(digits, (4,), count)
    return lambda rng: [f"20{first}{last}" for first, last in zip(rng.integers(1, 3, count), rest(rng), strict=True)]


def draw_dates(count: int) -> Callable[[np.random.Generator], list[str]]:
    """Draws days of 25 years as DDMMYY."""
    start = np.datetime64("2000-01-01")
    return lambda rng: [f"{day:%d%m%y}" for day in (start + rng.integers(0, DAYS, count)).tolist()]


def draw_words(count: int) -> Callable[[np.random.Generator], list[str]]:
    """Draws distinct English words of three to five letters."""
    words = load_default_words()
    return lambda rng: list(map(str, rng.choice(words, count, replace=False)))


def draw_plates(formats: Sequence[str], count: int) -> Callable[[np.random.Generator], list[str]]:
    """Draws plates of equally frequent formats: `A` is a random letter, `0` a random digit."""
    characters = {"A": list(ascii_uppercase), "0": list(digits)}

    def draw(rng: np.random.Generator) -> list[str]:
        return ["".join(rng.choice(characters.get(one, [one])) for one in rng.choice(formats)) for _ in range(count)]

    return draw


def draw_compounds(entries: int, count: int) -> Callable[[np.random.Generator], list[str]]:
    """Draws words of two out of 3,000 ideographs, of frequency 1/rank, from a new list of words."""
    make = draw_characters(IDEOGRAPHS, (2,), entries, [1 / rank for rank in range(1, 3001)])
    return lambda rng: list(map(str, rng.choice(make(rng), count)))


def draw_from_list(entries: int, count: int) -> Callable[[np.random.Generator], list[str]]:
    """Draws labels from a new list of random ones."""
    make = draw_characters(digits, (5,), entries)
    return lambda rng: list(map(str, rng.choice(make(rng), count)))


LETTERS_AND_DIGITS = ascii_lowercase + digits
SETS = (
    LabelSet("500 of 5 out of 36 characters", "none", draw_characters(LETTERS_AND_DIGITS, (5,), 500)),
    LabelSet("8,000 of 3 to 7 out of 33 letters", "none", draw_characters(CYRILLIC, (3, 4, 5, 6, 7), 8000)),
    LabelSet(
        "500 of 4 or 5 out of 26 letters, frequency 1/rank",
        "none",
        draw_characters(ascii_lowercase, (4, 5), 500, [1 / rank for rank in range(1, 27)]),
    ),
    LabelSet("100 of 4 digits", "none", draw_characters(digits, (4,), 100)),
    LabelSet("500 numbers that begin with 201 or 202", "none", draw_numbers(500)),
    LabelSet("2,000 of 5 out of 36 characters, none twice", "none", draw_without_repeats(LETTERS_AND_DIGITS, 5, 2000)),
    LabelSet("1,000 of 4 out of 3,000 ideographs", "none", draw_characters(IDEOGRAPHS, (4,), 1000)),
    LabelSet("500 plates as AB-1234", "none", draw_plates(["AA-0000"], 500)),
    LabelSet("500 plates as AB-1234 or 1234-AB", "words", draw_plates(["AA-0000", "0000-AA"], 500)),
    LabelSet("500 of 4 digits, none twice", "words", draw_without_repeats(digits, 4, 500)),
    LabelSet("2,000 out of 5,000 words of 2 ideographs", "words", draw_compounds(5000, 2000)),
    LabelSet("10,000 out of 50,000 words of 2 ideographs", "words", draw_compounds(50_000, 10_000)),
    LabelSet("500 dates as 310124", "words", draw_dates(500)),
    LabelSet("100 English words", "words", draw_words(100)),
    LabelSet("300 English words", "words", draw_words(300)),
    LabelSet("2,000 English words", "words", draw_words(2000)),
    LabelSet("500 out of 30 random labels", "words", draw_from_list(30, 500)),
)


def count_errors(label_set: LabelSet, draws: int) -> int:
    """Returns the number of wrong choices in a number of draws."""
    rng = np.random.default_rng(0)
    choices = [measure_dependence(label_set.draw(rng)).language_model for _ in range(draws)]
    return sum(choice != label_set.expected for choice in choices)


def main() -> None:
    """Prints the number of wrong choices for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="also print the results as one line of JSON")
    given = parser.parse_args()
    errors = {}
    print(f"| labels | right | wrong of {given.draws} |\n|---|---|---|", flush=True)
    for one in SETS:
        errors[one.name] = count_errors(one, given.draws)
        print(f"| {one.name} | `{one.expected}` | {errors[one.name]} |", flush=True)
    if given.json:
        print(json.dumps({"draws": given.draws, "errors": errors}))


if __name__ == "__main__":
    main()
