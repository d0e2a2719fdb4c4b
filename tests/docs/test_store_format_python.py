"""The Python that the page on the store shows does what the page says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.store.stores import (
    SHAPE,
    add_captions,
    add_dataset,
    add_features,
    expected_features,
    feature_config,
    new_store,
)

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "store_format.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_reads_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    store = new_store(tmp_path / "store")
    add_features(store, feature_config(), range(12), shards=2)
    add_dataset(store, "some", range(12))
    add_captions(store, "some", range(12))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert np.array_equal(names["features"], expected_features([7])[0])
    assert names["several"].shape == (2, *SHAPE)
    assert names["whole"].num_rows == sum(batch.num_rows for batch in names["batches"]) == 12
    assert sum(len(batch["key"]) for batch in names["streamed"]) == 12
    assert names["captions"].num_rows == names["catalog"].num_rows == 12
    assert names["caption"] == names["captions"].to_pylist()[0]
