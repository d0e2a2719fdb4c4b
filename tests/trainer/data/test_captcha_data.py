from dataclasses import replace

import pytest

from tests.trainer.words import add_words, make_words
from trainer.data.captcha_data import load_labelled_images
from trainer.data.table_selection import select_labelled_tables
from trainer.models.model_specs import RECOGNIZER_INPUT
from trainer.runs.run import load_run


def test_case_is_folded_in_the_labels_of_the_datasets_that_the_run_folds(squares, captchas, tmp_path):
    shown = captchas[-80:-40]
    store = make_words(tmp_path / "store", squares, shown)
    add_words(store, shown, ("train", "val"), dataset="folded", fold_case=True)
    tables = select_labelled_tables(store, RECOGNIZER_INPUT, ("captcha", "folded"))
    given = {one.image_id: one.word.upper() for one in shown}
    held_out = load_labelled_images(tables, "val", "folded".__eq__, given)
    words = {one.image_id: one.word for one in shown}
    assert {name for dataset, name in held_out.names if dataset == "folded"} == words.keys()
    for (dataset, name), (label,) in held_out.references.items():
        assert label == (words[name] if dataset == "folded" else words[name].upper())
    assert held_out.skipped["differing_labels"] == len(words)


def test_stored_labels_are_folded_if_the_run_ignores_case(squares, captchas, tmp_path):
    shown = [replace(one, word=one.word.upper()) for one in captchas[-80:-40]]
    store = make_words(tmp_path / "store", squares, shown)
    tables = select_labelled_tables(store, RECOGNIZER_INPUT, ("captcha",))
    for folds_case, change in ((lambda name: True, str.lower), (lambda name: False, str)):
        held_out = load_labelled_images(tables, "val", folds_case)
        assert set(held_out.labels) == {change(one.word) for one in shown}
        assert held_out.skipped["differing_labels"] == 0


@pytest.mark.parametrize(
    ("datasets", "folded", "expected"),
    [(("a",), ("a",), (True, True)), (("a",), (), (False, False)), (("a", "b"), ("a",), (True, False))],
)
def test_a_run_folds_the_case_of_other_datasets_if_it_does_of_all_its_own(words_run, datasets, folded, expected):
    metadata = load_run(words_run[0]).metadata.model_copy(update={"datasets": datasets, "folded_datasets": folded})
    assert (metadata.folds_case("a"), metadata.folds_case("other")) == expected
