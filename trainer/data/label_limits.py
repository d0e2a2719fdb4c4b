"""Finds the labels that a recognizer cannot output: unknown characters, too many characters, too few time steps."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.text.charset import Charset
from features.text.time_steps import count_required_steps
from schemas.errors import UsageError
from trainer.models.configs import RecognizerConfig

Problem = Literal["unknown_characters", "too_long", "too_few_time_steps"]

_MAX_LISTED = 10


@dataclass(frozen=True)
class LabelLimits:
    """What a recognizer can output.

    Args:
        charset: Characters.
        max_length: Maximum number of characters.
        time_steps: Number of CTC time steps; None for no limit.
    """

    charset: Charset
    max_length: int
    time_steps: int | None = None

    def find_problem(self, label: str) -> Problem | None:
        """Returns why the recognizer cannot output a label; None if it can."""
        if self.charset.find_unknown([label]):
            return "unknown_characters"
        if len(label) > self.max_length:
            return "too_long"
        fits = self.time_steps is None or count_required_steps(label) <= self.time_steps
        return None if fits else "too_few_time_steps"

    def allows(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        """Returns for each label whether the recognizer can output it, bool [N]."""
        allowed = {label: self.find_problem(label) is None for label in set(labels)}
        return np.array([allowed[label] for label in labels], bool)

    def describe_problems(self, labels: Sequence[str]) -> str:
        """Returns in words how many labels the recognizer cannot output and why; empty if it can output all."""
        counts = Counter(problem for label in labels if (problem := self.find_problem(label)))
        unknown = list_characters(self.charset.find_unknown(labels))
        reasons: dict[Problem, str] = {
            "unknown_characters": f"{{:,}} have characters that the train labels lack ({unknown})",
            "too_long": f"{{:,}} are longer than {self.max_length} characters",
            "too_few_time_steps": f"{{:,}} need more than {self.time_steps} time steps",
        }
        return ", ".join(reason.format(counts[problem]) for problem, reason in reasons.items() if problem in counts)


def resolve_config(config: RecognizerConfig, labels: Sequence[str]) -> RecognizerConfig:
    """Returns the hyperparameters with the characters and the maximum length of train labels, where they are not set.

    Raises:
        UsageError: A label has other characters, or more of them, than the hyperparameters allow.
    """
    longest, limit = max(labels, key=len), config.max_label_length
    if limit is not None and len(longest) > limit:
        message = (
            f"the longest label, {longest!r}, has {len(longest)} characters, and the model recognizes at most {limit}"
        )
        raise UsageError(message, hint=f"Set max_label_length to {len(longest)} in --config, or omit it.")
    charset = Charset.from_labels(labels)
    if config.charset and (missing := config.characters.find_unknown(charset.characters)):
        message = f"the train labels have characters that charset lacks: {list_characters(missing)}"
        raise UsageError(message, hint="Add them to charset in --config, or omit it.")
    resolved = {"charset": config.charset or "".join(charset.characters), "max_label_length": limit or len(longest)}
    return config.model_copy(update=resolved)


def check_text_rows(config: RecognizerConfig, height: int) -> None:
    """Raises UsageError if images of this height have fewer rows of cells than rows of text."""
    required = config.text_rows * config.column_width
    if config.text_rows > 1 and height <= required - config.column_width:
        message = f"text_rows is {config.text_rows}, and images {height} pixels high have too few rows of cells"
        raise UsageError(message, hint=f"Prepare the images with --height {required} or more.")


def check_time_steps(labels: Sequence[str], width: int, time_steps: int, required_width: Callable[[int], int]) -> None:
    """Raises UsageError if images of this width have too few CTC time steps for a train label.

    `required_width` maps a number of time steps to the width of images that have them.
    """
    longest = max(labels, key=count_required_steps)
    if (required := count_required_steps(longest)) > time_steps:
        raise UsageError(
            f"the label {longest!r} needs {required} time steps, one per character and one between equal neighbors, "
            f"but images {width} pixels wide have {time_steps}",
            hint=f"Prepare the images with --width {required_width(required)} or more.",
        )


def list_characters(characters: Sequence[str]) -> str:
    """Returns the first characters, quoted, and the number of the others."""
    listed = " ".join(map(repr, characters[:_MAX_LISTED]))
    more = len(characters) - _MAX_LISTED
    return f"{listed} and {more:,} more" if more > 0 else listed
