"""Notebook D: its settings are those of the course project, and it runs on generated images."""

from pathlib import Path
from typing import Any

import pytest

from tests.examples.notebooks.notebook_files import NotebookSettings, read_cell

NAME = "d_init_inject"


def test_the_settings_are_those_of_the_project() -> None:
    settings = NotebookSettings(NAME)
    features, captions = settings.prepare("prepare features"), settings.prepare("prepare captions")
    assert (features.extractor, features.pooling, features.resize_mode) == ("inception_v3", "avg", "crop")
    assert (features.height, features.width) == (299, 299)
    assert (captions.standardize, captions.min_count, captions.vocab_size) == ("alnum", 5, 0)
    sample = settings.prepare("synth sample")
    assert (sample.rate, sample.seed) == (0.01, 42)
    expected = {
        "model": "init_inject",
        "rnn_cell": "lstm",
        "embedding_dim": 100,
        "units": 300,
        "image_bottleneck": 120,
        "logit_bottleneck": 120,
        "learning_rate": 0.001,
        "batch_size": 64,
        "captions_per_image": "one",
        "epochs": 12,
        "steps_per_epoch": 1000,
        "num_validation_images": 100 * 64,
        "keep_epochs": 12,
    }
    hyperparameters = settings.hyperparameters()
    assert {name: hyperparameters[name] for name in expected} == expected


def test_the_real_data_are_those_that_capt_fetch_downloads(tmp_path: Path) -> None:
    variables: dict[str, Any] = {"DATA": str(tmp_path)}
    exec(read_cell(NAME, "data"), variables)
    assert [path.name for path in variables["images"]] == ["train2014.zip", "val2014.zip"]
    assert variables["annotations"] == [tmp_path / "annotations_trainval2014.zip"]


@pytest.mark.slow
def test_the_notebook_runs(execute: Any) -> None:
    values = execute(
        NAME,
        "sampled['images']",
        "prepared['ok']",
        "len(example['captions'])",
        "len(trained.history)",
        "trained.history[-1]['val_token_accuracy']",
        "scores['next_word_accuracy']",
        "len(scores['teacher_forced'])",
        "[[float(one) for one in row] for row in temperatures.values()]",
        "[caption.text for caption in generated]",
        "{name: len(captioned) for name, captioned in own.items()}",
    )
    assert 20 <= values["sampled['images']"] <= 60
    assert values["prepared['ok']"] == 400
    assert values["len(example['captions'])"] == 5
    assert values["len(trained.history)"] == 12
    assert 0.4 < values["trained.history[-1]['val_token_accuracy']"] < 1
    assert 0.4 < values["scores['next_word_accuracy']"] < 1
    assert values["len(scores['teacher_forced'])"] == 3
    table = values["[[float(one) for one in row] for row in temperatures.values()]"]
    assert table[1] == pytest.approx([0.903, 0.097, 9.2e-8], abs=5e-4)
    assert table[3] == pytest.approx([0.353, 0.346, 0.301], abs=5e-4)
    captions = values["[caption.text for caption in generated]"]
    assert len(captions) == 10
    assert all(captions)
    assert values["{name: len(captioned) for name, captioned in own.items()}"] == {"good": 2, "bad": 2}
    assert values["figures"] == 4
