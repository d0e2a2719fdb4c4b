"""Declares the options of `capt serve`, and those of its requests."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from schemas.choices import DecodingStrategy
from schemas.errors import UsageError
from schemas.options.base import Argument, Count, Options, option
from schemas.options.inference import (
    ALLOW_PRIVATE_ADDRESSES,
    MIN_CONFIDENCE,
    NUM_RETURN_SEQUENCES,
    STRATEGY,
    GenerationOptions,
    Probability,
)

MAX_CAPTIONS = 16  # beams, or captions per image
MAX_TOKENS = 256

MODEL = option(None, "Name of the model, as in GET /v1/models. [default: the first model of the task]", "NAME")


class Serve(Options):
    """Serve trained runs over HTTP: a page to try them on images, and a JSON API.

    Requests of all clients are batched. The server answers only this machine, unless --host and --api-key-file are
    given. Images are neither stored nor logged. Ctrl-C or SIGTERM stops it after the requests in progress.
    """

    runs: Annotated[
        tuple[str, ...],
        Argument(
            "Training run: a run directory, or STORE/models/NAME for the champion of a registered model. A new "
            "champion replaces the old one within seconds. Repeatable.",
            "RUN",
        ),
    ]
    host: str = option(
        "127.0.0.1",
        "Address to listen on. Any address but those of this machine only (127.0.0.1, ::1, localhost) requires "
        "--api-key-file. 0.0.0.0 is every IPv4 address.",
        "HOST",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = option(8080, "TCP port. 0 selects a free one.")
    api_key_file: str | None = option(
        None,
        "File with the API key, in one line. Requests must have the header `Authorization: Bearer KEY`; the page asks "
        "for the key.",
        "FILE",
    )
    allowed_host: tuple[str, ...] = option(
        (),
        "Host name that requests may use, such as that of a reverse proxy. Repeatable. [default: localhost, IP "
        "addresses and the value of --host only]",
        "NAME",
    )
    allow_private_addresses: bool = ALLOW_PRIVATE_ADDRESSES


class RequestOptions(Options):
    """Query parameters of a request."""

    @classmethod
    def parse_query(cls, query: Sequence[tuple[str, str]]) -> Self:
        """Parses the parameters of a query; only lists may be repeated. Raises UsageError as `parse`."""
        values: dict[str, Any] = {}
        for name, value in query:
            field = cls.model_fields.get(name)
            if field and field.annotation == tuple[str, ...]:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise UsageError("the parameter is set twice", location=f"--{name}", hint="Set it once.")
            else:
                values[name] = value
        return cls.parse(values)


class CaptionRequest(RequestOptions, GenerationOptions):
    """Query parameters of `POST /v1/caption`: the options of `capt caption` that affect captions, and two more."""

    model: str | None = MODEL
    num_return_sequences: Count | None = NUM_RETURN_SEQUENCES
    attention: bool = option(False, "Also return the attention weights of each caption. Attention models only.")

    @field_validator("num_beams", "num_return_sequences", "max_new_tokens")
    @classmethod
    def _limit(cls, value: int | None, info: Any) -> int | None:
        most = MAX_TOKENS if info.field_name == "max_new_tokens" else MAX_CAPTIONS
        if value is not None and value > most:
            raise PydanticCustomError("too_large", "at most {most}", {"most": most})
        return value

    @field_validator("temperature", "top_p", "length_penalty")
    @classmethod
    def _refuse_infinity(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise PydanticCustomError("not_finite", "a finite number")
        return value


class RecognizeRequest(RequestOptions):
    """Query parameters of `POST /v1/recognize`: the options of `capt recognize` that affect labels, and the model."""

    model: str | None = MODEL
    decoding_strategy: DecodingStrategy = STRATEGY
    min_confidence: Probability | None = MIN_CONFIDENCE
