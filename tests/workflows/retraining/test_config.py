"""The retraining file is checked before anything runs, and errors name the invalid key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.errors import UsageError
from tests.workflows.retraining.weeks import settings
from workflows.retraining.config import read_config

EXAMPLE = Path(__file__).parents[3] / "examples" / "retrain.yaml"


def refuse(root: Path, **changes: Any) -> str:
    path = root / "retrain.yaml"
    path.write_text(yaml.safe_dump({**settings(root), **changes}))
    with pytest.raises(UsageError) as raised:
        read_config(path)
    return str(raised.value)


def test_the_example_is_valid() -> None:
    config = read_config(EXAMPLE)
    assert config.metric == "cider_d"
    assert config.data_checks.failed_records.fail == 0.05
    assert config.gate.slices["stars"].max_regression is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"marign": 1}, "unknown key 'marign'"),
        ({"gate": {"marign": 1}}, "unknown key 'gate.marign'"),
        ({"data_checks": {"removed_images": {"halt": 1}}}, "unknown key 'data_checks.removed_images.halt'"),
        ({"gate": {"metric": "meteor"}}, "gate.metric: a captioner has no metric 'meteor'"),
        ({"gate": {"slices": {"odd": {"pattern": "("}}}}, "gate.slices.odd.pattern: invalid regular expression"),
        ({"train": {"model": "soft_attention", "unitz": 3}}, "unknown option 'unitz'"),
        ({"train": {"model": "none"}}, "none"),
        ({"features": {"extractor": "inception_v3", "resise": "tf"}}, "unknown option 'resise'"),
        ({"data": []}, "data: Tuple should have at least 1 item"),
        ({"data": [{"dataset_type": "coco", "pictures": ["x"]}]}, "unknown option 'pictures'"),
        ({"task": "captcha", "captions": {"vocab_size": 5}}, "captions: the task captcha has no captions"),
        ({"initialization": "warm"}, "initialization: Input should be 'random' or 'champion'"),
        ({"vocabulary": "grown"}, "vocabulary: Input should be 'rebuild' or 'reuse'"),
        ({"notifications": {"url": "file:///etc/passwd"}}, "notifications.url: String should match pattern"),
    ],
)
def test_an_invalid_value_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refuse(tmp_path, **changes)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml"):
        read_config(tmp_path / "missing.yaml")
    path = tmp_path / "retrain.yaml"
    path.write_text("a: [")
    with pytest.raises(UsageError, match="not YAML"):
        read_config(path)
    path.write_text("- a")
    with pytest.raises(UsageError, match="expected `key: value` lines"):
        read_config(path)
