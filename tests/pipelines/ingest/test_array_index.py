"""Arrays of every layout are listed with their names, the shape of a row, and a digest."""

import contextlib
import json
import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.inputs import file_reference
from pipelines.ingest.array_index import open_arrays
from pipelines.jobs.import_shard import import_rows
from schemas.errors import CaptError, UsageError
from schemas.table_config import FeatureTableConfig
from tests.conftest import zip_of

NAMES = ["a.jpg", "b.jpg", "sub/c.jpg"]
CONFIG = FeatureTableConfig(
    extractor="arrays", weights="x", layer="output", height=1, width=1, precision="float32", dtype="float32"
)


def values(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(len(NAMES), *shape)).astype(np.float32)


def write_files(directory: Path, rows: Any) -> Path:
    for name, row in zip(NAMES, rows, strict=True):
        path = directory / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, row)
    return directory


def write_whole(directory: Path, rows: Any, kind: str, names: str) -> tuple[Path, Path]:
    directory.mkdir(exist_ok=True)
    path, name_file = directory / f"all.{kind}", directory / f"names.{names}"
    if kind == "npy":
        np.save(path, rows)
    else:
        np.savez_compressed(path, features=rows)
    if names == "npy":
        np.save(name_file, np.array(NAMES))
    else:
        name_file.write_text(json.dumps(NAMES) if names == "json" else "\n".join(NAMES) + "\n")
    return path, name_file


def read_all(locations: Any, names: Any, work: Path) -> tuple[str, dict[str, Any]]:
    """The digest, and the row of each name."""
    with (
        open_arrays([str(one) for one in locations], names and str(names), work) as index,
        contextlib.closing(sqlite3.connect(index.path)) as db,
    ):
        db.row_factory = sqlite3.Row
        listed = [dict(row) | {"key": row["name"]} for row in db.execute("SELECT * FROM array")]
        results = list(import_rows(listed, CONFIG, index.shape, index.whole is not None))
        return index.digest, {result.key: result.values["value"] for result in results}


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 2, 3)])
def test_every_layout_gives_the_same_rows(tmp_path, shape):
    rows = values(*shape)
    files = write_files(tmp_path / "files", rows)
    np.savez(tmp_path / "each.npz", **dict(zip(NAMES, rows, strict=True)))
    shutil.make_archive(str(tmp_path / "files"), "tar", files)
    shutil.make_archive(str(tmp_path / "files"), "zip", files)
    layouts = [([path], None) for path in (files, *map(tmp_path.joinpath, ("each.npz", "files.tar", "files.zip")))]
    for kind, names in (("npy", "txt"), ("npy", "json"), ("npz", "npy")):
        path, name_file = write_whole(tmp_path / f"{kind}-{names}", rows, kind, names)
        layouts.append(([path], name_file))
    expected = rows.reshape(len(NAMES), -1, shape[-1]) if len(shape) > 1 else rows
    for locations, names in layouts:
        _, found = read_all(locations, names, tmp_path / "work")
        assert sorted(found) == NAMES, locations
        for name, row in zip(NAMES, expected, strict=True):
            np.testing.assert_array_equal(found[name], row)


def test_the_digest_is_that_of_names_and_values_alone(tmp_path):
    work = tmp_path / "work"
    one = write_files(tmp_path / "one", values(4))
    digest, _ = read_all([one], None, work)
    moved = shutil.copytree(one, tmp_path / "moved")
    assert read_all([moved], None, work)[0] == digest
    np.save(moved / "a.jpg.npy", values(4, seed=1)[0])
    assert read_all([moved], None, work)[0] != digest
    (one / "a.jpg.npy").rename(one / "d.jpg.npy")
    assert read_all([one], None, work)[0] != digest
    whole = [write_whole(tmp_path / names, values(4), kind, names) for kind, names in (("npy", "txt"), ("npz", "json"))]
    first, second = (read_all([path], names, work)[0] for path, names in whole)
    assert first == second
    np.save(whole[0][0], values(4, seed=1))
    assert read_all([whole[0][0]], whole[0][1], work)[0] != first


def test_the_most_frequent_shape_is_that_of_the_table(tmp_path):
    files = write_files(tmp_path / "files", values(4))
    np.save(files / "a.jpg.npy", np.zeros(5, np.float32))
    with open_arrays([str(files)], None, tmp_path / "work") as index:
        assert index.shape == (4,)


def test_a_change_of_the_array_during_the_job_is_noticed(tmp_path):
    path, names = write_whole(tmp_path, values(4), "npy", "txt")
    with open_arrays([str(path)], str(names), tmp_path / "work") as index:
        index.check_unchanged()
        np.save(path, values(4, seed=1))
        with pytest.raises(CaptError, match="the file changed during the job"):
            index.check_unchanged()


def test_an_array_that_cannot_be_read_ends_the_command_and_changes_no_digest(tmp_path, monkeypatch):
    files = write_files(tmp_path / "files", values(4))

    def fail(location: str, max_bytes: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(file_reference, "read_file", fail)
    with (
        pytest.raises(CaptError, match=r"npy: the array cannot be read: .*Input/output error\. Run the command again"),
        open_arrays([str(files)], None, tmp_path / "work"),
    ):
        pass


WRONG = {
    "pickle": (["rows.pkl"], None, "a pickle can run code.*Features that you already have"),
    "objects": (["objects.npy"], "names.txt", "objects.npy contains Python objects.*Features that you already have"),
    "names of objects": (["all.npy"], "objects.npy", "contains Python objects.*Write one name per line"),
    "files of objects": (["each"], None, "no array is usable; the first: .*x.npy contains Python objects"),
    "directory of pickles": (["pickles"], None, "x.pkl: a pickle can run code"),
    "no names": (["all.npy"], None, "one array needs the names of its rows. Add --array-names FILE"),
    "too few names": (["all.npy"], "two.txt", "two.txt: 2 names, and all.npy has 3 rows"),
    "missing": (["nothing"], None, "no such directory or archive"),
    "missing array": (["nothing.npy"], "names.txt", "nothing.npy: the file does not exist"),
    "missing names": (["all.npy"], "nothing.txt", "--array-names: .*nothing.txt: the file does not exist"),
    "names of a directory": (["each"], "names.txt", "names belong to one .npy or .npz file"),
    "two arrays": (["all.npy", "all.npz"], "names.txt", "names belong to one array, and 2 are given"),
    "two in one": (["two.npz"], "names.txt", "the file contains a, b. Save this array alone"),
    "npz without names": (
        ["rows.npz"],
        None,
        "got .3, 2, 2, 2, 4.. If one array has the rows of all images, add --arra",
    ),
    "no array": (["empty"], None, "contains no .npy file"),
    "integers": (["integers.npy"], "names.txt", "expected float16, float32 or float64, got int64"),
    "one vector": (["vector.npy"], "names.txt", r"expected \[images, …, d\], got \[3\]"),
    "truncated": (["truncated.npy"], "names.txt", "and its header declares 176"),
    "no list": (["all.npy"], "names.json", "the names cannot be read: expected a list of strings"),
    "no text": (["all.npy"], "binary.txt", "the names cannot be read"),
    "booleans": (["all.npy"], "booleans.json", "names cannot be read: name 1 is True, which is not text"),
    "array of booleans": (["all.npy"], "booleans.npy", "expected strings or whole numbers, got bool"),
    "surrogate": (["all.npy"], "surrogate.json", r"names cannot be read: name 2 is 'b.ud800', which is not text"),
    "corrupt npz": (["corrupt.npz"], "names.txt", "not a complete .npz file: "),
    "encrypted npz": (["encrypted.npz"], "names.txt", "not a complete .npz file: .*encrypted"),
    "not npz": (["text.npz"], "names.txt", "not a complete .npz file"),
}


@pytest.fixture
def inputs(tmp_path):
    rows = values(4)
    for name in ("each", "pickles", "empty"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "all.npy", rows)
    np.savez(tmp_path / "all.npz", rows)
    np.savez(tmp_path / "two.npz", a=rows, b=rows)
    np.savez(tmp_path / "rows.npz", values(2, 2, 2, 4))
    for path in ("objects.npy", "each/x.npy"):
        np.save(tmp_path / path, np.array([None, "a", 1], object), allow_pickle=True)
    for path in ("rows.pkl", "pickles/x.pkl"):
        (tmp_path / path).write_bytes(pickle.dumps(rows))
    np.save(tmp_path / "integers.npy", np.zeros((3, 4), np.int64))
    np.save(tmp_path / "vector.npy", np.zeros(3))
    (tmp_path / "truncated.npy").write_bytes((tmp_path / "all.npy").read_bytes()[:-1])
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "names.json").write_text('{"a": 1}')
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "text.npz").write_text("words")
    (tmp_path / "booleans.json").write_text("[true, false, true]")
    np.save(tmp_path / "booleans.npy", np.array([True, False, True]))
    (tmp_path / "surrogate.json").write_text('["a", "b\\ud800", "c"]')
    np.savez_compressed(tmp_path / "corrupt.npz", rows)
    packed = (tmp_path / "corrupt.npz").read_bytes()
    start = packed.index(b"arr_0.npy") + 40
    (tmp_path / "corrupt.npz").write_bytes(packed[:start] + b"\xff" * 20 + packed[start + 20 :])
    flagged = bytearray((tmp_path / "all.npz").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        flagged[flagged.index(header) + flags] |= 1
    (tmp_path / "encrypted.npz").write_bytes(flagged)
    return tmp_path


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_refused_in_one_line(inputs, case):
    locations, names, message = WRONG[case]
    given = [str(inputs / one) for one in locations], names and str(inputs / names)
    with pytest.raises(UsageError, match=message) as raised, open_arrays(*given, inputs / "work"):
        pass
    assert "\n" not in str(raised.value)
    assert not any((inputs / "work").glob("run-*"))


def test_files_of_several_directories_are_listed_together(tmp_path):
    rows = values(4)
    for name, row in zip(NAMES[:2], rows, strict=False):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / f"{name}.npy", row)
    archive = zip_of(tmp_path / "b.jpg", tmp_path / "b.zip")
    _, found = read_all([tmp_path / "a.jpg", archive], None, tmp_path / "work")
    assert sorted(found) == ["a.jpg", "b.jpg/b.jpg"]
