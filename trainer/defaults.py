"""`capt config`: what a model and its training are set to where nothing is said, as YAML that `--config` takes."""

from typing import Any

import yaml

from schemas.errors import UsageError
from trainer.captioners.models import model_spec
from trainer.config import parse_options, parse_recognizer
from trainer.recognizers.profiles import DEFAULT

RECOGNIZER = "recognizer"


def model_defaults(model: str, profile: str | None = None) -> dict[str, Any]:
    """The settings of `capt train captioner --model MODEL`, or of `capt train captcha --profile PROFILE`, by name.

    Args:
        model: str. A captioner, or `recognizer`.
        profile: str or None. Of a recognizer: a name of `trainer.recognizers.profiles`; None for `default`.

    Raises:
        UsageError: there is no such model or profile, or a captioner is asked for with one.
    """
    if model == RECOGNIZER:
        chosen = profile or DEFAULT
        training, sizes = parse_recognizer(chosen, {})
        return {"profile": chosen, **sizes.model_dump(mode="json"), **training.model_dump(mode="json")}
    if profile:
        raise UsageError(f"{model} has no profiles", where="--profile", mend=f"they are for {RECOGNIZER}")
    try:
        training, sizes = parse_options(model_spec(model).config, {})
    except UsageError as error:
        raise UsageError(error.what, where="MODEL", mend=f"{error.mend}, {RECOGNIZER}") from None
    return {"model": model, **sizes.model_dump(), **training.model_dump()}


def print_defaults(result: dict[str, Any]) -> None:
    """Print what `model_defaults` returned as YAML."""
    print(yaml.safe_dump(result, sort_keys=False), end="")
