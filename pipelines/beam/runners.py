"""Runners: the engine that a job runs on, and its options checked before anything starts."""

import argparse
import contextlib
import errno
import logging
import os
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipelines.beam.disk_errors import is_full_disk
from pipelines.beam.workers import quiet_threads
from schemas.errors import CaptError, UsageError

LOCAL_RUNNER = "FnApiRunner"
_LOCAL_RUNNERS = (LOCAL_RUNNER, "DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner", "PrismRunner")
_ANSWER_SECONDS = 60


@contextlib.contextmanager
def run_pipeline(beam_options: Sequence[str]) -> Iterator[beam.Pipeline]:
    """A pipeline to fill in the block, run and waited for at its end, on the runner that the options name.

    Without `--runner` it is FnApiRunner, in this process.

    Raises:
        UsageError: an option that neither Beam nor a runner knows.
        CaptError: the job failed.
        OSError: no space is left on the disk.
    """
    check_beam_options(beam_options)
    pipeline = _open_pipeline(beam_options)
    yield pipeline
    try:
        with quiet_threads():
            pipeline.run().wait_until_finish()
    except CaptError:
        raise
    except grpc.FutureTimeoutError as error:
        raise _no_answer(beam_options) from error
    except Exception as error:
        if str(error).startswith(KeyboardInterrupt.__name__):  # Beam makes a RuntimeError of it.
            raise KeyboardInterrupt from error
        if is_full_disk(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise CaptError(
            f"the job failed: {_reason(error)}", hint="run the same command again: what is finished is kept"
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalpha, line))]
    reason = lines[-1] if lines else type(error).__name__
    # What Beam says where a worker's data ends before the worker's own end is seen.
    return f"a worker process was lost: {reason}" if reason.startswith("Channel closed prematurely") else reason


def _open_pipeline(beam_options: Sequence[str]) -> beam.Pipeline:
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    options = PipelineOptions(list(beam_options))
    runner = options.view_as(StandardOptions).runner
    if runner in (None, LOCAL_RUNNER):
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    return beam.Pipeline(options=options)


def runs_locally(beam_options: Iterable[str]) -> bool:
    """Whether the runner that the options name computes on this machine alone."""
    runner = PipelineOptions(list(beam_options)).view_as(StandardOptions).runner
    return runner is None or runner.rpartition(".")[2] in _LOCAL_RUNNERS


def check_beam_options(beam_options: Sequence[str]) -> None:
    """UsageError where an option is one that neither Beam nor the engine knows; Beam itself would only log it."""
    stray = [option for option in beam_options[:1] if not option.startswith("--")]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in [PipelineOptions, *PipelineOptions.__subclasses__()]:
        options._add_argparse_args(parser)
    known = {name for action in parser._actions for name in action.option_strings}
    names = [option.partition("=")[0] for option in beam_options if option.startswith("--")]
    unknown = stray + [name for name in names if name not in known]
    if unknown and not stray:
        told = _options_of_engine(beam_options)
        unknown = [name for name in unknown if name not in told]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} is no option of Beam or its runners",
            location="after --",
            hint="see Beam's pipeline options",
        )


def _options_of_engine(beam_options: Sequence[str]) -> set[str]:
    """The options that the job server of a portable runner tells of; none where the runner has no such server."""
    options = PipelineOptions(list(beam_options))
    name = options.view_as(StandardOptions).runner
    runner = create_runner(name) if name else None
    if not isinstance(runner, PortableRunner):
        return set()
    try:
        service = runner.create_job_service(options).job_service
        asked = beam_job_api_pb2.DescribePipelineOptionsRequest()
        told = service.DescribePipelineOptions(asked, timeout=_ANSWER_SECONDS)
    except grpc.FutureTimeoutError as error:
        raise _no_answer(beam_options) from error
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return set()
        raise CaptError(f"the job server gives no answer: {error.details()}", location="after --") from error
    return {f"--{option.name}" for option in told.options}


def _no_answer(beam_options: Sequence[str]) -> CaptError:
    endpoint = PipelineOptions(list(beam_options)).view_as(PortableOptions).job_endpoint
    return CaptError("the job server does not answer", location=str(endpoint), hint="start it, or name another")
