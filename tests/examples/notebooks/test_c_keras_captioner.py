"""Notebook C: its settings are those of the report, and it runs on generated images."""

from typing import Any

import pytest

import capt
from schemas.yaml_file import read_settings
from tests.examples.notebooks.notebook_files import ROOT, NotebookSettings

NAME = "c_keras_captioner"


def test_the_settings_are_those_of_the_report() -> None:
    settings = NotebookSettings(NAME)
    features, captions = settings.prepare("prepare features"), settings.prepare("prepare captions")
    assert (features.dataset_type, features.extractor, features.pooling) == ("flickr8k", "inception_v3", "avg")
    assert captions.max_length == 20 + len(("<start>", "<end>"))
    expected = {
        "model": "merge",
        "rnn_cell": "lstm",
        "embedding_dim": 200,
        "dropout": 0.5,
        "image_dropout": 0.5,
        "batch_size": 64,
        "epochs": 20,
    }
    hyperparameters = settings.hyperparameters()
    assert {name: hyperparameters[name] for name in expected} == expected


def test_the_appendix_is_the_attention_captioner_of_the_lab() -> None:
    appendix = read_settings(ROOT / "examples" / "configs" / "notebook_c_attention.yaml")
    assert capt.config(**appendix)["model"] == "soft_attention"
    assert appendix == NotebookSettings("a_attention_lab").training | {"batch_size": 64, "epochs": 20}


@pytest.mark.slow
def test_the_notebook_runs(execute: Any) -> None:
    values = execute(
        NAME,
        "inputs.shape",
        "fitted",
        "[' '.join(run) for run in trained]",
        "[one['val_loss'] for one in trained.values()]",
        "[scores['cider_d'] for scores in runs.values()]",
        "[list(scores['slices']) for scores in runs.values()]",
        "caption.text",
    )
    assert values["inputs.shape"] == [4, 9]
    first, second = values["fitted"]
    assert second < first
    assert values["[' '.join(run) for run in trained]"] == [
        "mobilenet_v3_small lstm",
        "mobilenet_v3_small gru",
        "mobilenet_v2 lstm",
        "mobilenet_v2 gru",
    ]
    assert max(values["[one['val_loss'] for one in trained.values()]"]) < 3
    assert min(values["[scores['cider_d'] for scores in runs.values()]"]) > 0.05
    assert values["[list(scores['slices']) for scores in runs.values()]"] == [["circle", "red"]] * 4
    assert values["caption.text"]
    assert values["figures"] == 2
