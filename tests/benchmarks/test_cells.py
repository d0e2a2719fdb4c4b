"""The benchmark of cells measures the models of its experiment."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_wider_gru_has_as_many_weights_as_the_lstm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    cells = importlib.import_module("cells")
    monkeypatch.setattr("sys.argv", ["cells.py", "--rounds", "1", "--steps", "1"])
    monkeypatch.setattr(cells.tf.config.threading, "set_intra_op_parallelism_threads", lambda number: None)
    monkeypatch.setattr(cells.tf.config.threading, "set_inter_op_parallelism_threads", lambda number: None)
    cells.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    weights = {name.strip("|` "): int(count.replace(",", "")) for name, count, *_ in rows}
    assert weights["gru"] < weights["lstm"]
    assert weights["gru_wide"] == pytest.approx(weights["lstm"], rel=0.01)
