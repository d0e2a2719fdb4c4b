import json
from pathlib import Path

import numpy as np
import pytest

import capt
from schemas.errors import UsageError
from schemas.table_config import END, START
from trainer.models.captioner import bad_words_mask
from trainer.runs.captioner_ensemble import CaptionerEnsemble, open_captioner
from trainer.runs.run import load_run

SPATIAL = {"units": 24, "embedding_dim": 16, "attention_dim": 16, "projection_dim": 16, "output_dim": 24}
POOLED = {"units": 24, "embedding_dim": 16}
OPTIONS = {"batch_size": 32, "learning_rate": 0.01, "num_sample_captions": 0}


@pytest.fixture(scope="module")
def root(squares, tmp_path_factory):
    """A store with spatial and pooled features, and three runs: two with attention, `nic` without."""
    root, shown = tmp_path_factory.mktemp("ensemble"), squares.pictures(64)
    squares.write_pictures(root / "images", shown)
    store = squares.create_store(root / "store")
    squares.add_features(store, shown)
    squares.add_features(store, shown[:60], pooled=True)
    squares.add_captions(store, shown)
    squares.add_dataset(store, shown, folder=root / "images")
    for name, model, sizes, seed in (
        ("one", "soft_attention", SPATIAL, 1),
        ("two", "soft_attention", SPATIAL, 2),
        ("nic", "nic", POOLED, 3),
    ):
        options = {**sizes, **OPTIONS, "seed": seed}
        capt.train_captioner(
            store=store.path, run_dir=root / name, model=model, epochs=3, hyperparameters=options, verbose=0
        )
    return root


def paths(root, *names):
    return [str(root / name) for name in names]


def vote(models, features, count):
    """The token IDs and the score of the greedy caption by the mean of the models' probabilities."""
    states = [model.init_state(values) for model, values in zip(models, features, strict=True)]
    token, tokens, score = START, [], 0.0
    for _ in range(count):
        probabilities = []
        for number, model in enumerate(models):
            logits, states[number], _ = model.step(np.array([token], np.int32), states[number])
            values = np.asarray(logits, np.float64)[0]
            probabilities.append(np.exp(values - np.logaddexp.reduce(values)))
        logits = np.log(np.mean(probabilities, axis=0)) + bad_words_mask(len(probabilities[0]))
        token = int(np.argmax(logits))
        score += logits[token] - np.logaddexp.reduce(logits)
        if token == END:
            break
        tokens.append(token)
    return tokens, score


def test_each_step_takes_the_mean_of_the_probabilities_of_runs_with_any_features(root, squares):
    picture = squares.pictures(64)[50]
    ensemble = open_captioner(str(root / "one"), paths(root, "two", "nic"))
    caption = ensemble.caption(picture.data)
    runs = [load_run(root / name) for name in ("one", "two", "nic")]
    store = capt.open_store(root / "store")
    key = np.frombuffer(picture.key, np.uint8)[None]
    tables = {table.fingerprint: table for table in store.feature_tables()}
    each = [tables[run.metadata.features.fingerprint] for run in runs]
    features = [table.read(table.lookup(key)).astype(np.float32) for table in each]
    tokens, score = vote([run.model for run in runs], features, ensemble.decoding().max_new_tokens)
    assert caption.text == " ".join(ensemble.vocabulary[token] for token in tokens)
    assert caption.score == pytest.approx(score, abs=1e-3)
    # Only the runs with attention contribute.
    assert caption.attention.shape == (len(caption.words), 16)
    assert np.allclose(caption.attention.sum(axis=1), 1, atol=1e-3)


def test_the_evaluation_of_an_ensemble_is_beside_that_of_the_run(root):
    single = capt.evaluate(runs=str(root / "one"), split="val")
    result = capt.evaluate(runs=str(root / "one"), ensemble=paths(root, "nic"), split="val")
    # The last 4 images have no pooled features.
    assert (result["images"], result["without_features"]) == (single["images"] - 4, 4)
    assert result["ensemble"] == paths(root, "nic")
    assert result["scores_path"] != single["scores_path"]
    assert "ensemble" not in json.loads((root / "one" / "evaluation" / "val" / "scores.json").read_text())
    ensemble = open_captioner(str(root / "one"), paths(root, "nic"))
    rows = [line.split("\t") for line in Path(result["images_path"]).read_text().splitlines()[1:]]
    for name, text, *_ in rows[:3]:
        assert ensemble.caption(root / "images" / f"{name}.png").text == text


def test_captions_and_predictions_of_an_ensemble_agree(root, tmp_path):
    images = [str(root / "images" / f"{number:03d}.png") for number in (50, 51)]
    run, others = str(root / "one"), paths(root, "two")
    captions = capt.caption(run=run, images=images, ensemble=others, num_beams=2)["results"]
    capt.predict_captions(run=run, images=images, ensemble=others, num_beams=2, output=tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [caption["text"] for caption in captions]


def test_an_ensemble_has_an_identity_of_its_own(root):
    one, both, other = (open_captioner(str(root / "one"), paths(root, *names)) for names in ((), ("two",), ("nic",)))
    assert len({one.identity, both.identity, other.identity}) == 3
    assert (one.evaluation_name, both.evaluation_name == other.evaluation_name) == ("", False)


def test_the_evaluation_of_an_epoch_is_beside_that_of_the_best_one(root):
    run, epoch = load_run(root / "one"), load_run(root / "one")
    epoch.epoch = 3
    others = [load_run(root / "two")]
    best, last = (CaptionerEnsemble([first, *others]).evaluation_name for first in (run, epoch))
    assert last == f"{best}-epoch-3"


def test_a_run_named_twice_is_refused(root):
    with pytest.raises(UsageError, match=r"--ensemble .*one: the run is named twice"):
        capt.caption(run=str(root / "one"), images=["a.png"], ensemble=paths(root, "one"))
    (root / "link").symlink_to(root / "one")
    with pytest.raises(UsageError, match="the run is named twice"):
        capt.caption(run=str(root / "one"), images=["a.png"], ensemble=paths(root, "link"))


def test_an_ensemble_has_no_heads(root, tmp_path):
    others, page = paths(root, "two"), str(tmp_path / "page.html")
    with pytest.raises(UsageError, match="--attention-heads"):
        capt.caption(run=str(root / "one"), images=["a.png"], ensemble=others, attention_heads=True, page=page)


def test_runs_with_another_vocabulary_are_refused(root, squares, tmp_path):
    shown = squares.pictures(32)
    store = squares.create_store(tmp_path / "store")
    squares.add_features(store, shown)
    squares.add_captions(store, shown, words=[*squares.WORDS, "more"])
    squares.add_dataset(store, shown)
    capt.train_captioner(
        store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters={**SPATIAL, **OPTIONS}, verbose=0
    )
    with pytest.raises(UsageError, match="its vocabulary differs"):
        capt.evaluate(runs=str(root / "one"), ensemble=[str(tmp_path / "run")], split="val")


def test_recognizers_and_several_runs_are_refused(root, words_run):
    with pytest.raises(UsageError, match="--ensemble"):
        capt.evaluate(runs=words_run[0], ensemble=paths(root, "one"), split="val")
    with pytest.raises(UsageError, match="one run is evaluated with the ensemble, got 2"):
        capt.evaluate(runs=paths(root, "one", "two"), ensemble=paths(root, "nic"), split="val")
    with pytest.raises(UsageError, match="--attention: an ensemble does not use this option"):
        capt.evaluate(runs=str(root / "one"), ensemble=paths(root, "two"), split="val", attention=2)
