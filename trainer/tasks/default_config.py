"""Implements `capt config`: the default hyperparameters of a model as YAML, which `--config` reads."""

from typing import Any

import yaml

from schemas.errors import UsageError
from schemas.options.training import Config
from trainer.models.model_specs import MODELS
from trainer.tasks.captcha import CaptchaTask
from trainer.tasks.captioning import CaptioningTask


def model_defaults(options: Config) -> dict[str, Any]:
    """Returns the default hyperparameters of a model by name; raises UsageError for a profile of a captioner."""
    if options.model not in MODELS:
        return CaptchaTask().parse(options.profile, {}).to_dict(resolve=False)
    if options.profile:
        hint = "Omit the option. Only the recognizer has profiles."
        raise UsageError(f"{options.model} has no profiles", location="--profile", hint=hint)
    return CaptioningTask().parse(options.model, {}).to_dict(resolve=False)


def print_defaults(result: dict[str, Any]) -> None:
    """Prints the result of `model_defaults` as YAML."""
    print(yaml.safe_dump(result, sort_keys=False), end="")
