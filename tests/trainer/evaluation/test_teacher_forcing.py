import json
from pathlib import Path

import numpy as np
import pytest

import capt
from schemas.errors import UsageError
from schemas.terminal.console import Printer
from tests.workflows.test_example_pages import NASTY, Page, assert_inert
from trainer.evaluation.evaluate import print_evaluation
from trainer.evaluation.teacher_forcing import (
    MAX_SHOWN,
    ForcedCaption,
    forced_section,
    next_word_accuracy,
    print_forced_captions,
)
from trainer.runs.run import load_run

SIZES = {"units": 48, "embedding_dim": 32, "attention_dim": 32, "projection_dim": 32, "output_dim": 48}


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    options = {**SIZES, "batch_size": 32, "learning_rate": 0.01, "num_sample_captions": 0}
    return run, capt.train_captioner(store=store.path, run_dir=run, epochs=6, hyperparameters=options)


def evaluate(run, **options):
    return capt.evaluate(runs=run, split="val", num_examples=0, **options)


def test_true_and_predicted_words_of_some_captions_are_shown(trained, capsys):
    evaluated = evaluate(trained[0], teacher_forced=3)
    assert len(evaluated["teacher_forced"]) == 3
    for caption in evaluated["teacher_forced"]:
        assert caption["true"][-1] == "<end>"
        assert len(caption["true"]) == len(caption["predicted"])
    print_evaluation(evaluated)
    shown = capsys.readouterr().out
    assert "words predicted from the true words before them: " in shown
    assert f"  true       {evaluated['teacher_forced'][0]['true'][0]}" in shown
    assert json.loads((trained[0] / "evaluation" / "val" / "scores.json").read_text())["teacher_forced"]


def test_the_page_shows_them_beside_their_images(trained):
    evaluated = capt.evaluate(runs=trained[0], split="val", num_examples=1, teacher_forced=2)
    page = Page(Path(evaluated["page_path"]).read_text())
    assert_inert(page)
    for caption in evaluated["teacher_forced"]:
        rows = f"{caption['image']} true {' '.join(caption['true'])} predicted {' '.join(caption['predicted'])}"
        assert rows in page.text
    assert f"{evaluated['next_word_accuracy']:.1%} are correct" in page.text
    without = capt.evaluate(runs=trained[0], split="val", num_examples=1)
    assert "Next words" not in Path(without["page_path"]).read_text()


def test_the_page_marks_wrong_words_and_escapes_markup():
    caption = ForcedCaption("<b>", ("a", NASTY, "<end>"), ("a", "<script>", "<end>"))
    page = forced_section([caption], {"<b>": None})
    assert_inert(Page(page))
    assert '<span class="wrong">&lt;script&gt;</span>' in page
    assert page.count('class="wrong"') == 1


def test_the_page_shows_some_captions_of_many():
    captions = [ForcedCaption(str(number), ("<end>",), ("<end>",)) for number in range(MAX_SHOWN + 1)]
    page = forced_section(captions, {})
    assert page.count("<article") == MAX_SHOWN
    assert f"The first {MAX_SHOWN} of {MAX_SHOWN + 1} captions are shown." in page


def test_the_accuracy_over_all_images_is_near_that_of_training(trained, shown):
    evaluated = evaluate(trained[0], teacher_forced=1000)
    assert len(evaluated["teacher_forced"]) == sum(picture.split == "val" for picture in shown)
    # Training counts every caption of an image, and this one only the first.
    assert evaluated["next_word_accuracy"] == pytest.approx(trained[1]["val_token_accuracy"], abs=0.1)


def test_each_word_follows_the_true_words_before_it(trained, store, shown):
    run, table = load_run(trained[0]), store.feature_tables()[0]
    (caption,) = evaluate(trained[0], teacher_forced=1)["teacher_forced"]
    (picture,) = [picture for picture in shown if picture.image_id == caption["image"]]
    features = table.read(table.lookup(np.frombuffer(picture.key, np.uint8)[None]))
    state, token, predicted = run.model.init_state(features), 2, []
    for word in caption["true"]:
        logits, state, _ = run.model.step(np.array([token], np.int32), state)
        predicted.append(run.vocabulary[int(np.argmax(logits))])
        token = run.vocabulary.index(word)
    assert caption["predicted"] == predicted


def test_a_dot_stands_for_a_correct_word(capsys):
    captions = [ForcedCaption("7", ("a", "red", "dog", "<end>"), ("a", "yellow", "dog", "<unk>"))]
    assert next_word_accuracy(captions) == 0.5
    print_forced_captions(Printer(), captions)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "7",
        "  true       a red    dog <end>",
        "  predicted  · yellow ·   <unk>",
    ]


def test_recognizers_do_not_predict_words_from_earlier_ones(words_run):
    with pytest.raises(UsageError, match="--teacher-forced: recognizers do not"):
        capt.evaluate(runs=words_run[0], split="val", teacher_forced=1)
