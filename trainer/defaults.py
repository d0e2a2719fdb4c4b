"""`capt config`: what a model and its training are set to where nothing is said, as YAML that `--config` takes."""

from typing import Any

import yaml

from schemas.errors import UsageError
from trainer.config import parse_options
from trainer.models import model_spec


def model_defaults(model: str) -> dict[str, Any]:
    """The settings of `capt train captioner --model MODEL`, by name.

    Raises:
        UsageError: there is no such model.
    """
    try:
        training, sizes = parse_options(model_spec(model).config, {})
    except UsageError as error:
        raise UsageError(error.what, where="MODEL", mend=error.mend) from None
    return {"model": model, **sizes.model_dump(), **training.model_dump()}


def print_defaults(result: dict[str, Any]) -> None:
    """Print what `model_defaults` returned as YAML."""
    print(yaml.safe_dump(result, sort_keys=False), end="")
