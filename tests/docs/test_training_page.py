"""The page on training names every setting that all models have, with its default."""

import json
import re
from pathlib import Path

import yaml

from trainer.config import TrainingConfig, parse_options
from trainer.models.configs import SoftAttentionConfig
from trainer.models.model_specs import MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "training.md").read_text(encoding="utf-8")


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    found = re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE, re.MULTILINE)
    told = {name: yaml.safe_load(value) for name, value in found if name not in MODELS}
    assert told == json.loads(TrainingConfig().model_dump_json())


def test_every_model_is_named() -> None:
    assert all(f"`{name}`" in PAGE for name in MODELS)


def test_the_settings_of_the_example_are_accepted() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    training, _ = parse_options(SoftAttentionConfig, yaml.safe_load(example))
    assert training.extractor == "mobilenet_v2"
    assert training.extractor_lr_multiplier == 0.1
