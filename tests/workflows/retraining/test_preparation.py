"""The datasets of a retraining are prepared into one feature table."""

from pathlib import Path

import pytest

from features.store import Store
from schemas.errors import UsageError
from tests.workflows.experiments.files import captchas_of_two_sizes
from workflows.retraining.config import RetrainConfig
from workflows.retraining.preparation import prepare_data


def test_datasets_that_choose_different_sizes_are_refused(tmp_path: Path) -> None:
    data = tuple({**options, "dataset_name": name} for name, options in captchas_of_two_sizes(tmp_path).items())
    config = RetrainConfig(store=str(tmp_path / "store"), name="words", task="captcha", data=data)
    sizes = r"short .*\(48×96, pad-border\).*long .*\(48×192, pad-border\)"
    with pytest.raises(UsageError, match=rf"^data: .*{sizes}.*Set height, width and resize_mode"):
        prepare_data(config, Store(tmp_path / "store"), None, dry_run=True)
    stated = config.model_copy(update={"features": {"height": 48, "width": 192, "resize_mode": "pad-border"}})
    prepared = prepare_data(stated, Store(tmp_path / "store"), None, dry_run=True)
    assert prepared.datasets == ("short", "long")
    assert {summary["fingerprint"] for summary in prepared.summaries} == set(prepared.tables.values())
