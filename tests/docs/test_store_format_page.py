"""The reader that docs/reference/store_format.md shows reads what capt wrote."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.store.repair import FeatureTableRepair
from tests.features.store.stores import add_features, expected_features, feature_config, key_of, new_store

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "store_format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_the_reader_of_the_page_reads_what_capt_wrote(tmp_path: Path, file_format: Any, dtype: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    reader: dict[str, Any] = {}
    exec(code, reader)
    store, table_config = new_store(tmp_path / "store"), feature_config(file_format, dtype)
    add_features(store, table_config, range(8), shards=2)
    add_features(store, table_config, range(8, 12))
    root = store.feature_table_root(table_config)
    values = np.stack([reader["features"](root, key_of(number)) for number in range(12)])
    assert (values == expected_features(range(12), dtype)).all()
    with pytest.raises(KeyError):
        reader["features"](root, key_of(99))


def test_the_reader_of_the_page_reads_a_repaired_table(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    reader: dict[str, Any] = {}
    exec(code, reader)
    store, table_config = new_store(tmp_path / "store"), feature_config("tfrecord")
    add_features(store, table_config, range(8))
    lost = add_features(store, table_config, range(8, 12))
    root = store.feature_table_root(table_config)
    (root / "manifests" / f"{lost.digest}.json").unlink()
    with FeatureTableRepair(store, table_config) as repair:
        repair.open_intact()
    assert (reader["features"](root, key_of(3)) == expected_features([3])[0]).all()
    with pytest.raises(KeyError):
        reader["features"](root, key_of(9))
