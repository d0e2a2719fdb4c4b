"""Notebook B: its settings are those of the assignment, and it runs on generated images."""

from typing import Any

import pytest

from tests.examples.notebooks.notebook_files import NotebookSettings, read_cell, read_literals

NAME = "b_captcha_lab"


def test_the_settings_are_those_of_the_assignment() -> None:
    settings = NotebookSettings(NAME)
    assert settings.prepare("prepare captcha").split_sizes == "100000,20000,20000"
    assert settings.prepare("predict captcha").ids == "120000:140000"
    hyperparameters = settings.hyperparameters()
    assert (hyperparameters["profile"], hyperparameters["num_validation_images"]) == ("default", 20000)
    assert (hyperparameters["charset"], hyperparameters["max_label_length"]) == ("abcdefghijklmnopqrstuvwxyz", 5)


def test_the_real_data_are_the_archive_of_the_assignment() -> None:
    variables: dict[str, Any] = {"DATA": "words_captcha.zip", **read_literals(NAME, "settings")}
    exec(read_cell(NAME, "data"), variables)
    assert (variables["images"], variables["labels"]) == ("words_captcha.zip", "words_captcha.zip")
    assert (variables["num_train"], variables["num_val"], variables["num_test"]) == (100000, 20000, 20000)


@pytest.mark.slow
def test_the_notebook_runs(execute: Any) -> None:
    values = execute(
        NAME,
        "prepared['ok']",
        "prepared['failed']",
        "model['weights']",
        "len(trained.history)",
        "scores['exact_match_lexicon']",
        "scores['cer']",
        "answers.read_text().splitlines()",
        "[[one['file'], one['correct'], one['missing']] for one in grades['answers']]",
        "Path(report['page_path']).is_file()",
    )
    assert (values["prepared['ok']"], values["prepared['failed']"]) == (1400, 0)
    assert values["model['weights']"] > 10_000
    assert len(values["answers.read_text().splitlines()"]) == 200
    assert values["answers.read_text().splitlines()"][0].startswith("a1200 ")
    assert values["len(trained.history)"] == 8
    assert 0 <= values["scores['exact_match_lexicon']"] <= 1
    assert 0 <= values["scores['cer']"] < 1
    grades = values["[[one['file'], one['correct'], one['missing']] for one in grades['answers']]"]
    assert len(grades) == 3
    assert all(missing == 0 for _, _, missing in grades)
    assert any(correct == round(200 * values["scores['exact_match_lexicon']"]) for _, correct, _ in grades)
    assert values["Path(report['page_path']).is_file()"]
    assert values["figures"] == 4
