import numpy as np
import pytest

from schemas.errors import UsageError
from trainer.evaluation.slices import READY_SLICES, parse_slices, score_slices
from trainer.metrics.caption_metrics import Scorer

REFERENCES = [["a dog runs", "the brown dog"], ["a man eats pizza"], ["Two DOGS on grass", "pets"], ["a wall"]]
CAPTIONS = ["a dog runs", "a man", "two dogs on sand", "a wall"]


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        ("A black dog", {"animals", "colours"}),
        ("a hot dog", {"food"}),
        ("a teddy bear", set()),
        ("two women eat oranges outside", {"people", "food", "outdoors"}),
        ("a parked car", set()),
        ("reddish bread", {"food"}),
    ],
)
def test_ready_slices_match_words_of_their_subject(caption, names):
    assert {name for name, pattern in parse_slices(READY_SLICES).items() if pattern.search(caption)} == names


def test_an_image_is_in_a_slice_if_one_reference_matches():
    with Scorer() as scorer:
        scores = scorer.score(CAPTIONS, REFERENCES)
        dogs = scorer.score([CAPTIONS[0], CAPTIONS[2]], [REFERENCES[0], REFERENCES[2]])
    found = score_slices(parse_slices(["animals", r"pets=\bpets\b", "cars=car"]), REFERENCES, scores)
    assert {name: one["images"] for name, one in found.items()} == {"animals": 2, "pets": 1, "cars": 0}
    for name in ("bleu_1", "bleu_4", "rouge_l"):
        assert found["animals"][name] == pytest.approx(dogs.metrics[name])
    assert found["animals"]["cider_d"] == pytest.approx(np.mean(scores.per_image["cider_d"][[0, 2]]))
    low, high = found["animals"]["intervals"]["rouge_l"]
    assert low <= found["animals"]["rouge_l"] <= high
    assert "bleu_1" not in found["cars"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["fish"], r"--slice fish: there is no such ready slice. Use one of animals, .*, or NAME=REGEX"),
        (["a=b{99999999999999999999}"], "not a regular expression"),
        (["a=("], r"--slice a=\(: not a regular expression"),
        (["a="], r"a name and a regular expression are required"),
        (["=b"], r"a name and a regular expression are required"),
        (["a=b", "a=c"], r"the name a is used twice"),
    ],
)
def test_invalid_slices_are_wrong_usage(given, problem):
    with pytest.raises(UsageError, match=problem):
        parse_slices(given)
