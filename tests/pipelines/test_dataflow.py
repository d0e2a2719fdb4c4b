"""The job for Dataflow requests a GPU for one step, sets the container image, and moves names of units only."""

from pathlib import Path

import apache_beam as beam
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.common_urns import resource_hints
from apache_beam.runners.dataflow.internal.apiclient import get_container_image_from_options
from apache_beam.transforms.environments import DockerEnvironment

from features.extractors.runtimes import choose_runtime
from pipelines.beam.runner_options import parse_hints, runs_locally
from pipelines.beam.runners import check_beam_options
from pipelines.beam.unit_pipeline import add_units
from pipelines.beam.work_plans import write_unit
from pipelines.jobs.extract_shard import EXTRACT_UNIT_SCHEMA, ExtractShard
from schemas.errors import UsageError
from schemas.options.prepare import PrepareFeatures
from schemas.table_config import FeatureTableConfig

PRESET = Path(__file__).parents[2] / "examples" / "dataflow" / "options.yaml"
ACCELERATOR = resource_hints.ACCELERATOR.urn


@pytest.fixture
def preset():
    return yaml.safe_load(PRESET.read_text())


@pytest.fixture
def job(preset, tmp_path):
    """The translated pipeline of an extraction of two units with the preset's options."""
    for number in range(2):
        write_unit(tmp_path / "plan", f"{number:05d}", [], EXTRACT_UNIT_SCHEMA)
    table_config = FeatureTableConfig(
        extractor="mobilenet_v3_small", weights="random:1", layer="top", height=32, width=32, precision="float32"
    )
    worker = ExtractShard("features", "network.pb", table_config, (7,), "0" * 16, 2)
    options = PipelineOptions(preset["beam_options"])
    pipeline = beam.Pipeline(runner="DirectRunner", options=options)
    add_units(pipeline, tmp_path / "plan", worker, "Extract", parse_hints(preset["resource_hint"]))
    image = get_container_image_from_options(options)
    return pipeline.to_runner_api(default_environment=DockerEnvironment.from_container_image(image))


def steps(job):
    """The steps that do something themselves, by the name of what they are part of."""
    parts = job.components.transforms
    return {one.unique_name: one for one in parts.values() if one.spec.urn and not one.subtransforms}


def test_workers_compute_on_their_gpu_although_the_launcher_has_none(preset):
    options = PrepareFeatures(store="S", dataset_type="folder", images=["I"], **preset)
    assert not runs_locally(options.beam_options)
    runtime = choose_runtime(options.backend, options.device, options.extractor, is_local=False)
    assert (runtime.device, runtime.extractor_format) == ("gpu", "keras")


def test_only_the_extraction_step_requests_a_gpu(job):
    asking = {
        name
        for name, step in steps(job).items()
        if ACCELERATOR in job.components.environments[step.environment_id].resource_hints
    }
    assert asking == {"Extract"}
    environment = job.components.environments[steps(job)["Extract"].environment_id]
    assert environment.resource_hints[ACCELERATOR] == b"type:nvidia-l4;count:1;install-nvidia-driver"


def test_all_steps_run_in_the_given_container_image(job, preset):
    (image,) = (one.partition("=")[2] for one in preset["beam_options"] if one.startswith("--sdk_container_image="))
    used = {step.environment_id for step in steps(job).values()}
    assert {image.encode() in job.components.environments[name].payload for name in used if name} == {True}


def test_only_names_of_units_move_between_machines(job):
    parts, values = job.components.transforms, job.components.pcollections
    shuffles = [one for one in parts.values() if one.spec.urn == "beam:transform:group_by_key:v1"]
    spread = next(one for one in parts.values() if one.unique_name == "Spread")
    assert len([one for one in shuffles if not one.unique_name.startswith("Plan")]) == 1
    (moved,) = spread.inputs.values()
    assert job.components.coders[values[moved].coder_id].spec.urn == "beam:coder:string_utf8:v1"
    extract = next(one for one in parts.values() if one.unique_name == "Extract")
    (given,) = extract.outputs.values()
    assert not [one for one in parts.values() if given in one.inputs.values()]


def test_the_preset_contains_only_options_of_the_command_and_of_beam(preset):
    PrepareFeatures(store="s", dataset_type="folder", images=("i",), **preset)
    check_beam_options(preset["beam_options"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_ram", "'min_ram' is not a resource hint"),
        ("gpus=1", "'gpus=1' is not a resource hint"),
        ("min_ram=lots", "'lots' is not a value of min_ram"),
    ],
)
def test_a_hint_that_beam_does_not_know_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_hints([text])
