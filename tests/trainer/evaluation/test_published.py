from types import SimpleNamespace

import pytest

from schemas.errors import UsageError
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


@pytest.mark.parametrize(
    ("dataset", "model", "scores"),
    [
        ("flickr8k", "NIC", (63, 41, 27, None, None)),
        ("flickr8k", "Log Bilinear", (65.6, 42.4, 27.7, 17.7, 17.31)),
        ("flickr8k", "soft attention", (67, 44.8, 29.9, 19.5, 18.93)),
        ("flickr8k", "hard attention", (67, 45.7, 31.4, 21.3, 20.30)),
        ("flickr30k", "NIC", (66.3, 42.3, 27.7, 18.3, None)),
        ("flickr30k", "Log Bilinear", (60.0, 38, 25.4, 17.1, 16.88)),
        ("flickr30k", "soft attention", (66.7, 43.4, 28.8, 19.1, 18.49)),
        ("flickr30k", "hard attention", (66.9, 43.9, 29.6, 19.9, 18.46)),
        ("coco", "CMU/MS Research", (None, None, None, None, 20.41)),
        ("coco", "MS Research", (None, None, None, None, 20.71)),
        ("coco", "BRNN", (64.2, 45.1, 30.4, 20.3, None)),
        ("coco", "NIC", (66.6, 46.1, 32.9, 24.6, None)),
        ("coco", "Log Bilinear", (70.8, 48.9, 34.4, 24.3, 20.03)),
        ("coco", "soft attention", (70.7, 49.2, 34.4, 24.3, 23.90)),
        ("coco", "hard attention", (71.8, 50.4, 35.7, 25.0, 23.04)),
    ],
)
def test_scores_are_those_of_the_papers(dataset, model, scores):
    (row,) = (row for row in read_published()[dataset] if row.model == model)
    assert (row.bleu_1, row.bleu_2, row.bleu_3, row.bleu_4, row.meteor) == scores


def test_a_run_has_a_row_with_and_one_without_the_brevity_penalty():
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
