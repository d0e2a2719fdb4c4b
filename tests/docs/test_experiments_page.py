"""The experiments that the page and the examples show are accepted, every trial of them."""

import re
from pathlib import Path

import pytest
import yaml

from workflows.experiments.config import parse_experiment_config
from workflows.experiments.grid import build_grid

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how_to" / "experiments.md").read_text(encoding="utf-8")
SHOWN = {
    "the page": re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0],
    **{path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*experiment.yaml"))},
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_experiment_that_is_shown_is_accepted(name: str) -> None:
    definition = parse_experiment_config(yaml.safe_load(SHOWN[name]), name)
    trials = build_grid(definition, name).trials
    assert len(trials) > 1
    for trial in trials:
        definition.of_task.settings(trial.options)


def test_the_page_names_every_file_that_is_left_behind() -> None:
    for name in (
        "experiment.json",
        "runs/<trial>/",
        "results/<trial>.json",
        "tables/<kind>-<name>.json",
        "report.html",
    ):
        assert f"| `{name}` |" in PAGE
