from tests.trainer.words import add_words, make_words
from trainer.data.captcha_data import load_labelled_images
from trainer.data.table_selection import select_labelled_tables
from trainer.models.model_specs import RECOGNIZER_INPUT


def test_given_labels_have_the_form_of_the_labels_of_each_dataset(squares, captchas, tmp_path):
    shown = captchas[-80:-40]
    store = make_words(tmp_path / "store", squares, shown)
    add_words(store, shown, ("train", "val"), dataset="folded", fold_case=True)
    tables = select_labelled_tables(store, RECOGNIZER_INPUT, ("captcha", "folded"))
    given = {one.image_id: one.word.upper() for one in shown}
    held_out = load_labelled_images(tables, "val", given)
    words = {one.image_id: one.word for one in shown}
    assert {name for dataset, name in held_out.names if dataset == "folded"} == words.keys()
    for (dataset, name), (label,) in held_out.references.items():
        assert label == (words[name] if dataset == "folded" else words[name].upper())
    assert held_out.skipped["differing_labels"] == len(words)
