import subprocess
import sys

import pytest
import yaml

import capt
from schemas.errors import UsageError
from trainer.config import parse_options, parse_recognizer
from trainer.models.model_specs import MODELS
from trainer.profiles import PROFILES
from trainer.tasks.default_config import print_defaults


@pytest.mark.parametrize("model", MODELS)
def test_what_is_printed_can_be_given_to_training_again(model, capsys):
    print_defaults(capt.config(model=model))
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings.pop("model") == model
    assert parse_options(MODELS[model].config, settings) == parse_options(MODELS[model].config, {})


def test_an_unknown_model_is_refused_with_the_names_there_are():
    with pytest.raises(UsageError, match=r"MODEL: .*soft_attention"):
        capt.config(model="show_and_tell")


def test_showing_defaults_imports_nothing_heavy():
    show = "import sys, capt; capt.config('soft_attention'); capt.config('recognizer')"
    program = f"{show}; print({{'keras', 'tensorflow'}} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_recognizers_profile_can_be_given_to_training_again(profile, capsys):
    print_defaults(capt.config(model="recognizer", profile=profile))
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings.pop("profile") == profile
    assert parse_recognizer("default", settings) == parse_recognizer(profile, {})


def test_a_captioner_has_no_profiles():
    with pytest.raises(UsageError, match=r"--profile: nic has no profiles"):
        capt.config(model="nic", profile="quick")


# === Summary ===


def test_a_summary_lists_layers_with_shapes_and_weights_for_sizes_that_it_tells(capsys):
    result = capt.config(model="merge", summary=True)
    assert result["feature_shape"] == [2048]
    assert result["vocab_size"] == 5000
    (logits,) = [layer for layer in result["layers"] if layer["name"] == "logits"]
    assert logits["weights"] == (256 + 1) * 5000
    print_defaults(result)
    printed = capsys.readouterr().out
    assert "logits" in printed
    assert "features 2048 (--feature-shape), vocabulary 5,000 (--vocab-size)" in printed


def test_a_summary_has_the_sizes_and_hyperparameters_that_are_set(tmp_path):
    figure = tmp_path / "model.png"
    sizes = {"vocab_size": 20, "feature_shape": "9,12", "units": 16, "output": figure}
    result = capt.config(model="soft_attention", summary=True, **sizes)
    shapes = {layer["name"]: layer["output_shape"] for layer in result["layers"]}
    assert shapes["feature_normalization"][1:] == (9, 12)
    assert shapes["recurrence"][1:] == (16,)
    assert shapes["logits"][1:] == (20,)
    assert result["figure"] == str(figure)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_recognizer_has_no_vocabulary_in_its_summary():
    result = capt.config(model="recognizer", summary=True)
    assert result["feature_shape"] == [80, 160, 3]
    assert "vocab_size" not in result


@pytest.mark.parametrize(
    ("model", "options", "problem"),
    [
        ("nic", {"vocab_size": 100}, r"--vocab-size: the option requires --summary"),
        ("nic", {"output": "x.png"}, r"--output: the option requires --summary"),
        ("nic", {"summary": True, "feature_shape": "64,2048"}, r"--feature-shape: nic does not read .*Write 2048"),
        ("nic", {"summary": True, "feature_shape": "0"}, r"--feature-shape: '0' is not a shape"),
        ("nic", {"summary": True, "vocab_size": 3}, r"--vocab-size: expected at least 4"),
        ("recognizer", {"summary": True, "vocab_size": 9}, r"--vocab-size: a recognizer has no vocabulary"),
        ("nic", {"unit": 3}, r"unknown option 'unit'"),
    ],
)
def test_wrong_sizes_are_refused_by_name(model, options, problem):
    with pytest.raises(UsageError, match=problem):
        capt.config(model=model, **options)


def test_changed_hyperparameters_are_printed_with_the_others():
    assert capt.config(model="nic", units=7)["units"] == 7
