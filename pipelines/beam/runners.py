"""Runs a Beam pipeline on the chosen runner, after its options are checked."""

import argparse
import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Sequence

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipelines.beam.disk_errors import is_full_disk
from pipelines.beam.runner_options import LOCAL_RUNNER
from pipelines.beam.workers import silence_threads
from schemas.errors import CaptError, UsageError

_JOB_SERVER_TIMEOUT = 60
_BEAM_OPTIONS = "Options after --"


@contextlib.contextmanager
def run_pipeline(beam_options: Sequence[str]) -> Iterator[beam.Pipeline]:
    """Yields a pipeline, and runs it at the end of the block. Without `--runner`, FnApiRunner runs it in this process.

    Raises CaptError if the job fails, OSError if the disk is full, and UsageError as `check_beam_options`.
    """
    check_beam_options(beam_options)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    options = PipelineOptions(list(beam_options))
    is_default = options.view_as(StandardOptions).runner in (None, LOCAL_RUNNER)
    pipeline = beam.Pipeline(runner=FnApiRunner() if is_default else None, options=options)
    yield pipeline
    try:
        with silence_threads():
            pipeline.run().wait_until_finish()
    except CaptError:
        raise
    except grpc.FutureTimeoutError as error:
        raise _build_timeout_error(beam_options) from error
    except Exception as error:
        if str(error).startswith(KeyboardInterrupt.__name__):  # Beam turns it into a RuntimeError.
            raise KeyboardInterrupt from error
        if is_full_disk(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        hint = "Run the same command again. It resumes from the finished work."
        raise CaptError(f"the job failed: {_find_reason(error)}", hint=hint) from error


def check_beam_options(beam_options: Sequence[str]) -> None:
    """Raises UsageError if neither Beam, which only logs unknown options, nor the runner has one of the options."""
    stray = [option for option in beam_options[:1] if not option.startswith("--")]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in [PipelineOptions, *PipelineOptions.__subclasses__()]:
        options._add_argparse_args(parser)
    known = {name for action in parser._actions for name in action.option_strings}
    names = [option.partition("=")[0] for option in beam_options if option.startswith("--")]
    unknown = stray + [name for name in names if name not in known]
    if unknown and not stray:
        runner_options = _request_runner_options(beam_options)
        unknown = [name for name in unknown if name not in runner_options]
    if unknown:
        message = f"{unknown[0]!r} is not an option of Beam or its runners"
        raise UsageError(message, location=_BEAM_OPTIONS, hint="See Beam's pipeline options.")


def _find_reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalpha, line))]
    reason = lines[-1] if lines else type(error).__name__
    # Beam's message if the data of a worker ends before Beam notices the end of its process.
    return f"a worker process was lost: {reason}" if reason.startswith("Channel closed prematurely") else reason


def _request_runner_options(beam_options: Sequence[str]) -> set[str]:
    """Returns the options of a portable runner's job server; none without a job server."""
    options = PipelineOptions(list(beam_options))
    name = options.view_as(StandardOptions).runner
    runner = create_runner(name) if name else None
    if not isinstance(runner, PortableRunner):
        return set()
    try:
        service = runner.create_job_service(options).job_service
        request = beam_job_api_pb2.DescribePipelineOptionsRequest()
        response = service.DescribePipelineOptions(request, timeout=_JOB_SERVER_TIMEOUT)
    except grpc.FutureTimeoutError as error:
        raise _build_timeout_error(beam_options) from error
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return set()
        raise CaptError(f"the job server failed: {error.details()}", location=_BEAM_OPTIONS) from error
    return {f"--{option.name}" for option in response.options}


def _build_timeout_error(beam_options: Sequence[str]) -> CaptError:
    endpoint = PipelineOptions(list(beam_options)).view_as(PortableOptions).job_endpoint
    hint = "Start the job server, or choose another --job_endpoint."
    return CaptError("the job server does not respond", location=str(endpoint), hint=hint)
