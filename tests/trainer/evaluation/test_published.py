from types import SimpleNamespace

import pytest

from schemas.errors import UsageError
from tests.trainer.programs import no_java as no_java  # a fixture
from trainer.evaluation.published import DATASETS, compare_published, find_published, read_published
from trainer.metrics.caption_metrics import Scorer


def datasets(*names):
    return [SimpleNamespace(name=name) for name in names]


def test_every_dataset_has_published_scores_with_their_source_and_convention():
    published = read_published()
    assert set(published) == set(DATASETS)
    for rows in published.values():
        assert {"soft attention", "hard attention", "NIC", "Log Bilinear"} <= {row.model for row in rows}
        for row in rows:
            values = [value for value in (row.bleu_1, row.bleu_2, row.bleu_3, row.bleu_4) if value is not None]
            assert values == sorted(values, reverse=True)
            assert all(1 < value < 100 for value in [*values, *([row.meteor] if row.meteor else [])])
            assert row.bleu in ("not stated", "without brevity penalty")


def test_a_run_has_a_row_with_and_one_without_the_brevity_penalty(no_java):
    with Scorer() as scorer:
        scores = scorer.score(["a dog runs", "a cat"], [["a dog runs on grass"], ["a cat sleeps on a sofa"]])
    table = compare_published("flickr8k", "merge", scores)
    penalized, unpenalized, *others = table["rows"]
    assert (penalized["model"], penalized["source"], penalized["bleu"]) == ("merge", "this run", "with brevity penalty")
    assert penalized["bleu_1"] == round(100 * scores.metrics["bleu_1"], 2)
    assert (unpenalized["bleu"], unpenalized["bleu_1"]) == ("without brevity penalty", 100)
    assert unpenalized["meteor"] is None
    assert [one["model"] for one in others] == [row.model for row in read_published()["flickr8k"]]


@pytest.mark.parametrize(
    ("beside", "names", "found"),
    [
        ("published", ["flickr8k"], "flickr8k"),
        ("published", ["Flickr30k-karpathy"], "flickr30k"),
        ("published", ["coco-train", "coco-val"], "coco"),
        ("coco", ["scenes"], "coco"),
    ],
)
def test_a_dataset_is_known_by_its_name_or_named_by_the_option(beside, names, found):
    assert find_published(beside, datasets(*names)) == found


@pytest.mark.parametrize("names", [["scenes"], ["coco", "flickr8k"]])
def test_other_datasets_are_wrong_usage(names):
    with pytest.raises(UsageError, match=r"^--beside published: there is no published table of .*Choose one with"):
        find_published("published", datasets(*names))
