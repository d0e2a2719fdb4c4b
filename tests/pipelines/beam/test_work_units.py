"""Work units run once, their first result is used, and their progress can be read."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.beam.work_plans import (
    Advance,
    list_pending_units,
    read_progress,
    read_results,
    read_unit,
    write_unit,
)
from pipelines.beam.work_units import run_units
from schemas.errors import CaptError

SCHEMA = pa.schema([("number", pa.int64())])


@dataclass(frozen=True)
class Sum:
    """Adds a unit's numbers up, and notes that it was called."""

    log: str

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        with Path(self.log).open("a") as file:
            file.write(unit.stem + "\n")
        rows = read_unit(unit)
        advance(len(rows), 1)
        return json.dumps(sum(row["number"] for row in rows)).encode()


@dataclass(frozen=True)
class Break:
    """Fails on one unit."""

    log: str

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        if unit.stem == "00002":
            raise OSError("no space left on device")
        return Sum(self.log)(unit, advance)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    for unit in range(4):
        write_unit(tmp_path / "plan", f"{unit:05d}", ({"number": unit * 10 + n} for n in range(3)), SCHEMA)
    return tmp_path / "plan"


def test_every_unit_has_a_result_in_order(plan: Path, tmp_path: Path) -> None:
    run_units(plan, Sum(str(tmp_path / "log")), [], "Sum")
    assert [json.loads(result) for result in read_results(plan)] == [3, 33, 63, 93]
    assert list(list_pending_units(plan)) == []


def test_a_unit_with_a_result_is_not_repeated(plan: Path, tmp_path: Path) -> None:
    (plan / "done").mkdir()
    (plan / "done" / "00001.json").write_text("-1")
    run_units(plan, Sum(str(tmp_path / "log")), [], "Sum")
    assert [json.loads(result) for result in read_results(plan)] == [3, -1, 63, 93]
    assert sorted((tmp_path / "log").read_text().split()) == ["00000", "00002", "00003"]


def test_a_failing_unit_is_one_line_and_the_finished_ones_are_kept(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptError) as caught:
        run_units(plan, Break(str(tmp_path / "log")), [], "Break")
    assert "no space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    run_units(plan, Sum(str(tmp_path / "log")), [], "Sum")
    assert (tmp_path / "log").read_text().split().count("00000") == 1


def test_the_final_progress_counts_all_records_and_failures(plan: Path, tmp_path: Path) -> None:
    run_units(plan, Sum(str(tmp_path / "log")), [], "Sum")
    assert read_progress(plan) == (12, "4 failed")
