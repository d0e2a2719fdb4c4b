"""The settings that docs/how_to/training.md shows are accepted."""

import re
from pathlib import Path

import yaml

from trainer.config import CaptionerTraining, parse_options
from trainer.models.configs import SoftAttentionConfig

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "training.md").read_text(encoding="utf-8")


EXAMPLES = {example.partition("\n")[0]: example for example in re.findall(r"```yaml\n# (.*?)```", PAGE, re.DOTALL)}


def _parse(name: str) -> CaptionerTraining:
    return parse_options(SoftAttentionConfig, yaml.safe_load(f"# {EXAMPLES[name]}"))[0]


def test_the_settings_of_each_example_are_accepted() -> None:
    assert EXAMPLES.keys() == {"samples.yaml", "kept.yaml", "second.yaml", "pixels.yaml"}
    assert _parse("samples.yaml").sample_temperatures == (0.0, 0.5, 1.0)
    assert _parse("kept.yaml").keep_epochs == 3
    assert _parse("second.yaml").objective == "cider_d"
    assert _parse("pixels.yaml").extractor == "mobilenet_v2"
    assert _parse("pixels.yaml").extractor_lr_multiplier == 0.1
