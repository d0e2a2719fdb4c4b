"""Defines the settings and the result of caption generation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator, model_validator

from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.temperature import check_temperature

# Every caption of allowed tokens has a greater log-probability.
IMPOSSIBLE = -1e8
_TEMPERATURE_AND_BEAMS = "a temperature cannot be combined with a beam width above 1"


class GenerationConfig(Settings):
    """Settings of caption generation: beam search or, with a temperature, sampling.

    Args:
        max_new_tokens: Maximum number of generated tokens per caption; the end token counts.
        num_beams: Beam width; 1 is greedy decoding.
        length_penalty: Exponent of the length that divides the log-probability when beams are ranked; the end token
            counts. 1 ranks by the mean, 0 favors short captions.
        num_return_sequences: Number of captions per image, best first.
        temperature: Softmax temperature of sampling: below 1 is more conservative. None for beam search.
        top_k: Sample only from the k most probable tokens.
        top_p: Sample from the smallest set of tokens with at least this probability in total.
        seed: Seed of sampling.
        no_repeat_ngram_size: Length of the n-grams that a caption may contain only once.
        bad_word_ids: Token IDs that are never generated.
    """

    max_new_tokens: int = Field(ge=1)
    num_beams: int = Field(1, ge=1)
    length_penalty: float = Field(1.0, ge=0)
    num_return_sequences: int = Field(1, ge=1)
    temperature: float | None = None
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int = Field(0, ge=0)
    no_repeat_ngram_size: int | None = Field(None, ge=1)
    bad_word_ids: tuple[int, ...] = ()

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, temperature: float | None) -> float | None:
        if temperature == 0:
            raise ValueError("0 is greedy decoding: omit the temperature")
        return temperature if temperature is None else check_temperature(temperature)

    @model_validator(mode="after")
    def _check(self) -> "GenerationConfig":
        if self.temperature is None and (self.top_k or self.top_p):
            raise ValueError("top_k and top_p require a temperature above 0")
        if self.temperature is not None and self.num_beams > 1:
            raise ValueError(_TEMPERATURE_AND_BEAMS)
        if self.temperature is None and self.num_return_sequences > self.num_beams:
            raise ValueError(f"{self.num_return_sequences} captions need a beam width of as many")
        return self


def parse_generation(options: Mapping[str, Any]) -> GenerationConfig:
    """Parses the fields of the config; None selects the default, and `temperature=0` greedy decoding without beams.

    Raises:
        UsageError: An option is unknown or out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("temperature") == 0:
        del given["temperature"]
        if given.get("num_beams", 1) > 1:
            raise UsageError(_TEMPERATURE_AND_BEAMS, location="--temperature")
    try:
        return GenerationConfig(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ", ".join(f"--{field}".replace("_", "-") for field in first["loc"])
        raise UsageError(first["msg"].removeprefix("Value error, "), location=name) from None


@dataclass(frozen=True)
class GenerationOutput:
    """Generated captions, `num_return_sequences` per image, best first.

    Args:
        tokens: Token IDs int32 [B, N, T] without start and end token, padded with 0.
        scores: Log-probability float32 [B, N] of each caption, including its end token; less than `IMPOSSIBLE` if
            fewer captions exist than were requested.
        attention: Attention weights float32 [B, N, T, locations] of each token, or None.
    """

    tokens: NDArray[np.int32]
    scores: NDArray[np.float32]
    attention: NDArray[np.float32] | None
