import logging

from pipelines.jobs.label_summary import summarize_labels

LABELS = [("train", "aa", 2), ("train", "b", 1), ("val", "ac", 1), ("test", "é", 3), ("unused", "z", 1)]


def test_labels_lengths_and_characters_are_counted_by_split(caplog):
    with caplog.at_level(logging.WARNING):
        found = summarize_labels(LABELS, "set")
    assert found == {
        "labels": {"train": 3, "val": 1, "test": 3, "unused": 1},
        "label_lengths": {"1": {"train": 1, "test": 3, "unused": 1}, "2": {"train": 2, "val": 1}},
        "characters": {
            "a": {"train": 4, "val": 1},
            "b": {"train": 1},
            "c": {"val": 1},
            "z": {"unused": 1},
            "é": {"test": 3},
        },
        "unseen_characters": ["c", "é"],
    }
    assert "set: 2 characters occur in val or test and not in train: c é." in caplog.text


def test_characters_are_unseen_only_beside_train_labels(caplog):
    labels = [("val", "\u0301" + "".join(map(chr, range(0x4E00, 0x4E40))), 1)]
    assert summarize_labels(labels, "set")["unseen_characters"]
    assert not caplog.text
    summarize_labels([("train", "a", 1), *labels], "set")
    assert "U+0301 COMBINING ACUTE ACCENT 一 丁" in caplog.text
    assert "and 45 more" in caplog.text
