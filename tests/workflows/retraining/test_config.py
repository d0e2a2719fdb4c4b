"""A retraining's file is checked before anything runs, and what is wrong in it is named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.errors import UsageError
from tests.workflows.retraining.weeks import settings
from workflows.retraining.config import read_config

EXAMPLE = Path(__file__).parents[3] / "examples" / "retrain.yaml"


def refused(root: Path, **changes: Any) -> str:
    path = root / "retrain.yaml"
    path.write_text(yaml.safe_dump({**settings(root), **changes}))
    with pytest.raises(UsageError) as raised:
        read_config(path)
    return str(raised.value)


def test_the_example_is_one() -> None:
    config = read_config(EXAMPLE)
    assert config.metric == "cider_d"
    assert config.rules.failed.stop == 0.05
    assert config.gate.slices["stars"].tolerance is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"marign": 1}, "unknown key 'marign'"),
        ({"gate": {"marign": 1}}, "unknown key 'gate.marign'"),
        ({"rules": {"lost": {"halt": 1}}}, "unknown key 'rules.lost.halt'"),
        ({"gate": {"metric": "meteor"}}, "not gated by meteor; use one of bleu_1"),
        ({"gate": {"slices": {"odd": {"pattern": "("}}}}, "gate.slices.odd.pattern: no regular expression"),
        ({"train": {"model": "soft_attention", "unitz": 3}}, "unknown option 'unitz'"),
        ({"train": {"model": "none"}}, "none"),
        ({"features": {"extractor": "inception_v3", "resise": "tf"}}, "unknown option 'resise'"),
        ({"data": []}, "data: Tuple should have at least 1 item"),
        ({"data": [{"dataset_type": "coco", "pictures": ["x"]}]}, "unknown option 'pictures'"),
        ({"task": "captcha", "captions": {"vocab_size": 5}}, "captions are not for captcha"),
        ({"hooks": {"url": "file:///etc/passwd"}}, "hooks.url: String should match pattern"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, **changes)


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the file"):
        read_config(tmp_path / "no.yaml")
    path = tmp_path / "retrain.yaml"
    path.write_text("a: [")
    with pytest.raises(UsageError, match="not YAML"):
        read_config(path)
    path.write_text("- a")
    with pytest.raises(UsageError, match="expected `key: value` lines"):
        read_config(path)
