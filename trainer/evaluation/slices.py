"""Scores captions by subject: the images whose references match a pattern, `capt evaluate --slice NAME=REGEX`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from trainer.evaluation.bootstrap import bootstrap_intervals, sample_captions
from trainer.metrics.caption_metrics import Scores

Slices = Mapping[str, re.Pattern[str]]

_WORDS = {
    "animals": (
        r"animals?|pets?|(?<!hot )dogs?|pupp(y|ies)|cats?|kittens?|birds?|horses?|pon(y|ies)|cows?|cattle|bulls?|"
        r"calf|calves|sheep|lambs?|goats?|pigs?|elephants?|zebras?|giraffes?|(?<!teddy )bears?|lions?|tigers?|"
        r"monkeys?|rabbits?|bunn(y|ies)|ducks?|goose|geese|chickens?|roosters?|swans?|owls?|parrots?|penguins?|"
        r"seagulls?|pigeons?|deer|camels?|donkeys?|llamas?|squirrels?|turtles?|greyhounds?|poodles?|retrievers?|"
        r"labradors?"
    ),
    "people": (
        r"people|persons?|m[ae]n|wom[ae]n|boys?|girls?|child|children|kids?|bab(y|ies)|toddlers?|infants?|"
        r"lad(y|ies)|guys?|gentlem[ae]n|adults?|teenagers?|crowds?|famil(y|ies)|players?|riders?|surfers?|skiers?|"
        r"skateboarders?|snowboarders?|skaters?|swimmers?|climbers?|hikers?|cyclists?|bikers?|bicyclists?|runners?|"
        r"dancers?|musicians?|workers?|pedestrians?|athletes?|tourists?|friends?|brothers?|sisters?|mothers?|"
        r"fathers?"
    ),
    "colours": (
        r"red|blue|green|yellow|orange|purple|violet|pink|brown|black|white|gr[ae]y|tan|beige|golden|silver|"
        r"turquoise|colou?red|colou?rful|multicolou?red"
    ),
    "food": (
        r"foods?|meals?|breakfast|lunch|dinner|pizzas?|sandwich(es)?|hot ?dogs?|(ham)?burgers?|fries|"
        r"(cup|pan)?cakes?|do(ugh)?nuts?|desserts?|cookies?|pies?|bread|toast|cheese|meat|steaks?|soups?|salads?|"
        r"rice|pasta|spaghetti|noodles|sushi|vegetables?|veggies|broccoli|carrots?|potato(es)?|tomato(es)?|onions?|"
        r"fruits?|apples?|bananas?|oranges|grapes|strawberr(y|ies)|ice cream|chocolate|candy|snacks?|eggs?|bacon|"
        r"sausages?|popcorn"
    ),
    "outdoors": (
        r"outdoors?|outside|streets?|roads?|sidewalks?|highways?|paths?|trails?|parks?|grass|grassy|fields?|"
        r"meadows?|beach(es)?|ocean|sea|lakes?|rivers?|ponds?|waves?|sand|sandy|snow|snowy|mountains?|hills?|"
        r"hillside|cliffs?|forests?|woods|trees?|sky|gardens?|yards?|backyard|desert|playgrounds?"
    ),
}
READY_SLICES = {name: rf"\b({words})\b" for name, words in _WORDS.items()}


def parse_slices(given: Iterable[str]) -> Slices:
    """Parses values of `--slice`: the name of a ready slice, or NAME=REGEX.

    Raises:
        UsageError: A ready slice does not exist, a regular expression is invalid, or a name is used twice.
    """
    slices: dict[str, re.Pattern[str]] = {}
    for text in given:
        name, equals, pattern = text.partition("=")
        location = f"--slice {text}"
        if not equals and name not in READY_SLICES:
            hint = f"Use one of {', '.join(READY_SLICES)}, or NAME=REGEX."
            raise UsageError("there is no such ready slice", location=location, hint=hint)
        if not name or (equals and not pattern):
            raise UsageError("a name and a regular expression are required", location=location, hint="Use NAME=REGEX.")
        if name in slices:
            raise UsageError(f"the name {name} is used twice", location=location, hint="Use another name.")
        try:
            slices[name] = re.compile(pattern if equals else READY_SLICES[name], re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"not a regular expression: {error}", location=location) from None
    return slices


def score_slices(slices: Slices, references: Sequence[Sequence[str]], scores: Scores) -> dict[str, dict[str, Any]]:
    """Scores the images of each slice, those of which at least one reference matches its pattern.

    Args:
        slices: Patterns by name.
        references: The references of each image, in the order of the scores.
        scores: The scores of all images.

    Returns:
        Per slice `pattern`, `images`, and unless there are none the metrics of `RESAMPLED_METRICS` and their 95%
        confidence `intervals`. The n-gram weights of CIDEr-D are those of all references, so slices are comparable.
    """
    return {name: _score(pattern, _select(pattern, references), scores) for name, pattern in slices.items()}


def _select(pattern: re.Pattern[str], references: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    return np.array([any(map(pattern.search, texts)) for texts in references], np.bool_)


def _score(pattern: re.Pattern[str], mask: NDArray[np.bool_], scores: Scores) -> dict[str, Any]:
    result: dict[str, Any] = {"pattern": pattern.pattern, "images": int(mask.sum())}
    if not result["images"]:
        return result
    samples = sample_captions(scores).select(mask)
    return {**result, **samples.metrics(), "intervals": bootstrap_intervals(samples)}
