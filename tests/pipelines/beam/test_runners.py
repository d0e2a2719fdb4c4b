"""Unknown Beam options are refused before a job starts, and an unresponsive job server is named."""

import apache_beam as beam
import pytest

from pipelines.beam.runners import check_beam_options, run_pipeline
from schemas.errors import CaptError, UsageError

NOBODY = ("--runner=PortableRunner", "--job_endpoint=localhost:1", "--job_server_timeout=1")


@pytest.mark.parametrize("option", ["--parallelsim=2", "parallelism=2", "--parallelsim"])
def test_an_unknown_option_is_refused(option):
    with pytest.raises(UsageError, match="is not an option of Beam or its runners"):
        check_beam_options([option])


def test_options_of_beam_and_of_its_runners_are_known():
    check_beam_options(
        ["--runner=FlinkRunner", "--flink_master=host:8081", "--parallelism=2", "--temp_location", "gs://b"]
    )


@pytest.mark.parametrize("options", [NOBODY, (*NOBODY, "--an_option_of_its_own=1")])
def test_a_job_server_that_does_not_respond_is_named(options):
    with pytest.raises(CaptError, match="the job server does not respond") as failure, run_pipeline(options):
        pass
    assert failure.value.location == "localhost:1"


def test_a_closed_data_channel_is_a_lost_worker(monkeypatch):
    def run(pipeline):
        raise RuntimeError("Channel closed prematurely.")  # in Beam's words

    monkeypatch.setattr(beam.Pipeline, "run", run)
    with pytest.raises(CaptError, match="a worker process was lost"), run_pipeline([]):
        pass
