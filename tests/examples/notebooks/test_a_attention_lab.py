"""Notebook A: its settings are those of the course lab, and it runs on generated images."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.examples.notebooks.notebook_files import NotebookSettings, read_cell

NAME = "a_attention_lab"


def test_the_settings_are_those_of_the_lab() -> None:
    settings = NotebookSettings(NAME)
    features, captions = settings.prepare("prepare features"), settings.prepare("prepare captions")
    for prepared in (features, captions):
        assert (prepared.sample_captions, prepared.seed, prepared.split_ratios) == (30000, 1, "0.8,0.2")
    assert (features.extractor, features.pooling, features.resize_method) == ("inception_v3", "none", "tf")
    assert (captions.vocab_size, captions.standardize, captions.max_length) == (5000, "keras", 0)
    expected = {
        "model": "soft_attention",
        "rnn_cell": "gru",
        "batch_size": 100,
        "embedding_dim": 256,
        "units": 512,
        "attention_dim": 512,
        "projection_dim": 256,
        "output_dim": 512,
        "optimizer": "adam",
        "epochs": 50,
        "keep_epochs": 5,
        "padded_loss": True,
    }
    hyperparameters = settings.hyperparameters()
    assert {name: hyperparameters[name] for name in expected} == expected


def test_the_real_data_are_those_that_capt_fetch_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("annotations_trainval2014.zip", "w") as archive:
        archive.writestr("annotations/captions_train2014.json", json.dumps({}))
    variables: dict[str, Any] = {"DATA": str(tmp_path)}
    exec(read_cell(NAME, "data"), variables)
    assert variables["images"] == [tmp_path / "train2014.zip"]
    assert [path.name for path in variables["annotations"]] == ["captions_train2014.json"]
    assert all(path.is_file() for path in variables["annotations"])


@pytest.mark.slow
def test_the_notebook_runs(execute: Any) -> None:
    values = execute(
        NAME,
        "prepared['ok']",
        "trained['epochs']",
        "trained.history[-1]",
        "caption.text",
        "caption.attention.shape",
        "own.text",
        "scores['bleu_1']",
        "Path(scores['page_path']).is_file()",
    )
    assert values["prepared['ok']"] > 150
    assert values["trained['epochs']"] == 12
    last = values["trained.history[-1]"]
    assert 0 < last["padded_loss"] < last["loss"] < 3
    assert values["caption.text"]
    assert values["own.text"]
    assert values["caption.attention.shape"][1] == 49
    assert 0.2 < values["scores['bleu_1']"] <= 1
    assert values["Path(scores['page_path']).is_file()"]
    assert values["figures"] == 3
