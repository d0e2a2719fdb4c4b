"""Notebook E: its settings are those of the term paper, and it runs on generated images."""

from typing import Any

import pytest

from tests.examples.notebooks.notebook_files import NotebookSettings

NAME = "e_transformer"


def test_the_settings_are_those_of_the_paper() -> None:
    settings = NotebookSettings(NAME)
    features, captions = settings.prepare("prepare features"), settings.prepare("prepare captions")
    assert (features.dataset_type, features.extractor, features.pooling) == ("flickr8k", "mobilenet_v3_small", "none")
    assert features.num_shards == 16
    assert (captions.standardize, captions.vocab_size, captions.max_length) == ("punctuation", 5000, 50)
    expected = {
        "model": "transformer",
        "num_layers": 2,
        "units": 256,
        "num_heads": 2,
        "dropout": 0.5,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "batch_size": 32,
        "steps_per_epoch": 100,
        "epochs": 100,
        "early_stopping_patience": 5,
        "validation_split": "test",
        "sample_temperatures": [0, 0.5, 1],
        "plot_from_zero": True,
    }
    hyperparameters = settings.hyperparameters()
    assert {name: hyperparameters[name] for name in expected} == expected
    captions_per_image, validation_steps = 5, 20
    assert hyperparameters["num_validation_images"] * captions_per_image == validation_steps * expected["batch_size"]


@pytest.mark.slow
def test_the_notebook_runs(execute: Any) -> None:
    values = execute(
        NAME,
        "trained.history[-1]",
        "weights.shape",
        "len(caption.words)",
        "caption.text",
        "scores['notes']",
        "scores['published']['dataset']",
        "scores['attention']['words']['all']['words']",
        "(work / 'words.html').is_file()",
    )
    assert 0 < values["trained.history[-1]"]["val_loss"] < 3
    layers, heads, words, locations = values["weights.shape"]
    assert (layers, heads, locations) == (2, 2, 49)
    assert words - values["len(caption.words)"] in (0, 1)
    assert values["caption.text"]
    assert any("selected on test" in note for note in values["scores['notes']"])
    assert values["scores['attention']['words']['all']['words']"] > 8
    assert values["scores['published']['dataset']"] == "flickr8k"
    assert values["(work / 'words.html').is_file()"]
    assert values["figures"] == 4
