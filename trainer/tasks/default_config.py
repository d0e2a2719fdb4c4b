"""`capt config`: what a model and its training are set to where nothing is said, as YAML that `--config` takes."""

from typing import Any

import yaml

from schemas.errors import UsageError
from schemas.options.training import Config
from trainer.config import parse_options, parse_recognizer
from trainer.models.configs import DEFAULT_PROFILE
from trainer.models.model_specs import model_spec

RECOGNIZER = "recognizer"


def model_defaults(options: Config) -> dict[str, Any]:
    """The settings of `capt train captioner --model MODEL`, or of `capt train captcha --profile PROFILE`, by name.

    Args:
        options: The model, and the profile of a recognizer.

    Raises:
        UsageError: a profile is given for a captioner.
    """
    model = options.model
    if model == RECOGNIZER:
        chosen = options.profile or DEFAULT_PROFILE
        training, sizes = parse_recognizer(chosen, {})
        return {"profile": chosen, **sizes.model_dump(mode="json"), **training.model_dump(mode="json")}
    if options.profile:
        raise UsageError(f"{model} has no profiles", location="--profile", hint=f"they are for {RECOGNIZER}")
    training, sizes = parse_options(model_spec(model).config, {})
    return {"model": model, **sizes.model_dump(), **training.model_dump()}


def print_defaults(result: dict[str, Any]) -> None:
    """Print what `model_defaults` returned as YAML."""
    print(yaml.safe_dump(result, sort_keys=False), end="")
