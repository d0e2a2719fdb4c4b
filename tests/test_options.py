"""The command line and the Python options of a job have the same names and defaults."""

import inspect
from typing import Any

import pytest
from pydantic import BaseModel

import capt
from pipelines.prepare_captions import CaptionOptions
from pipelines.prepare_features import FeatureOptions
from trainer.training import train_captioner
from trainer.training_words import train_captcha


@pytest.mark.parametrize(
    ("declared", "options"), [(capt.prepare_features, FeatureOptions), (capt.prepare_captions, CaptionOptions)]
)
def test_a_command_and_its_options_agree(declared: Any, options: type[BaseModel]) -> None:
    parameters = inspect.signature(declared).parameters
    assert set(parameters) == set(options.model_fields)
    for name, field in options.model_fields.items():
        default = parameters[name].default
        if field.is_required():
            assert default is inspect.Parameter.empty, name
        else:
            assert (tuple(default) if isinstance(default, list) else default) == field.default, name


@pytest.mark.parametrize(
    ("command", "function"), [(capt.train_captioner, train_captioner), (capt.train_captcha, train_captcha)]
)
def test_a_command_that_trains_and_its_function_agree(command: Any, function: Any) -> None:
    declared, options = (inspect.signature(one).parameters for one in (command, function))
    assert {name: one.default or None for name, one in declared.items()} == {
        name: one.default or None for name, one in options.items()
    }
