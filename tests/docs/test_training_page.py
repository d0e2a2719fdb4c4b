"""The settings that docs/how_to/training.md shows are accepted."""

import re
from pathlib import Path

import yaml

from trainer.config import parse_options
from trainer.models.configs import SoftAttentionConfig

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "training.md").read_text(encoding="utf-8")


def test_the_settings_of_the_example_are_accepted() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    training, _ = parse_options(SoftAttentionConfig, yaml.safe_load(example))
    assert training.extractor == "mobilenet_v2"
    assert training.extractor_lr_multiplier == 0.1
