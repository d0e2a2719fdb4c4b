"""Reads the options of a runner, and imports Beam, which takes seconds, only if there are some."""

from collections.abc import Iterable, Sequence

from schemas.errors import UsageError

LOCAL_RUNNER = "FnApiRunner"
_LOCAL_RUNNERS = (LOCAL_RUNNER, "DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner", "PrismRunner")


def runs_locally(beam_options: Iterable[str]) -> bool:
    """Returns whether the runner uses this machine only."""
    given = list(beam_options)
    if not given:
        return True
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    runner = PipelineOptions(given).view_as(StandardOptions).runner
    return runner is None or runner.rpartition(".")[2] in _LOCAL_RUNNERS


def parse_hints(texts: Sequence[str]) -> dict[str, str]:
    """Parses `--resource-hint NAME=VALUE`, such as `min_ram=16GB`, to arguments for Beam's `with_resource_hints`."""
    return dict(map(_parse_hint, texts))


def _parse_hint(text: str) -> tuple[str, str]:
    from apache_beam.transforms.resources import ResourceHint, parse_resource_hints

    name, sign, value = text.partition("=")
    message = "" if sign and ResourceHint.is_registered(name) else f"{text!r} is not a resource hint"
    try:
        parse_resource_hints({} if message else {name: value})
    except ValueError:
        message = f"{value!r} is not a value of {name}"
    if message:
        raise UsageError(message, location="--resource-hint", hint="Write min_ram=16GB, for example.")
    return name, value
