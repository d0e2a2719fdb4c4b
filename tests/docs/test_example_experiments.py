"""The experiments of the examples are accepted, with every trial."""

from pathlib import Path

import pytest
import yaml

from workflows.experiments.config import parse_experiment_config
from workflows.experiments.planning import build_grid

ROOT = Path(__file__).parents[2]
EXAMPLES = {
    path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*experiment.yaml"))
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_experiment_of_the_examples_is_accepted(name: str) -> None:
    config = parse_experiment_config(yaml.safe_load(EXAMPLES[name]), name)
    trials = build_grid(config, name).trials
    assert len(trials) > 1
    for trial in trials:
        config.training_task.settings(trial.options)
