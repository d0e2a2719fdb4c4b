import subprocess
import sys

import pytest
import yaml

import capt
from schemas.errors import UsageError
from trainer.config import PROFILES, parse_options, parse_recognizer
from trainer.models.model_specs import MODELS
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
