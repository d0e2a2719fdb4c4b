"""A name in annotations means the file at its path, and nothing else; the order of roots decides nothing."""

import sqlite3
import struct
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import capt
from features.inputs import FileReference, ListedFile
from pipelines.ingest.image_database import ImageDatabase
from pipelines.ingest.job_database import InputRecord
from tests.conftest import noise_image

PIXELS: dict[str, Any] = {"extractor": "pixels", "height": 8, "width": 8, "max_failures": "100%"}
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)


def draw(**seeds: int) -> None:
    """Images by path, with `__` for a slash; equal seeds are equal bytes."""
    for name, seed in seeds.items():
        path = Path(f"{name.replace('__', '/')}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_image(seed, 12, 9).save(path)


def prepare(names: Sequence[str], roots: Sequence[str], store: str = "store") -> dict[str, str]:
    """The file of each image, or the reason of its failure, by the name that the annotations give."""
    lines = "".join(f'"{name}","words {number}"\n' for number, name in enumerate(names))
    Path("c.csv").write_text(f"image,caption\n{lines}", encoding="utf-8")
    result = capt.prepare_features(store=store, dataset_type="csv", images=list(roots), annotations=["c.csv"], **PIXELS)
    rows = capt.open_store(store).dataset("csv").catalog().to_pylist()
    found = {row["image_id"]: row["member"] or str(Path(row["location"]).relative_to(Path.cwd())) for row in rows}
    failed = {row["record"]: row["reason"] for row in report(result) if row["status"] == "failed"}
    assert result["input"] == len(set(names)) == len(found) + len(failed)
    return found | failed


def report(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(result["report"]).to_pylist()
    return rows


# === Names with a folder ===


def test_a_name_with_a_folder_is_that_path_and_no_other_folders_file() -> None:
    draw(ph__cats__001=1, ph__dogs__002=2)
    names = ["cats/001.png", "dogs/001.png", "dogs/002.png"]
    assert prepare(names, ["ph"]) == {
        "cats/001.png": "ph/cats/001.png",
        "dogs/001.png": "missing",
        "dogs/002.png": "ph/dogs/002.png",
    }


def test_a_name_may_begin_with_the_roots_own_folder() -> None:
    draw(data__val2014__a=1)
    assert prepare(["val2014/a.png"], ["data/val2014"]) == {"val2014/a.png": "data/val2014/a.png"}


def test_a_name_may_leave_out_the_one_folder_that_holds_all_of_a_root() -> None:
    draw(x__images__00__a=1, x__images__01__a=2)
    assert prepare(["01/a.png", "02/a.png"], ["x"]) == {"01/a.png": "x/images/01/a.png", "02/a.png": "missing"}


@pytest.mark.parametrize("name", ["../q/a.png", "/q/a.png", "p/../q/a.png"])
def test_a_name_never_leads_out_of_the_roots(name: str) -> None:
    draw(p__b=1, q__a=2)
    assert prepare([name], ["p"]) == {name: "missing"}


# === Several files ===


@pytest.mark.parametrize("roots", [["p", "q"], ["q", "p"]])
@pytest.mark.parametrize("name", ["a.png", "x/a.png"])
def test_a_name_of_several_files_is_ambiguous_in_any_order_of_roots(roots: list[str], name: str) -> None:
    folder = "__x" if "/" in name else ""
    draw(**{f"p{folder}__a": 1, f"q{folder}__a": 2})
    assert prepare([name], roots) == {name: "ambiguous"}


def test_a_bare_name_of_two_folders_of_one_root_is_ambiguous_and_both_are_named() -> None:
    draw(p__x__a=1, p__y__a=2, p__y__b=3)
    assert prepare(["a.png", "b.png"], ["p"]) == {"a.png": "ambiguous", "b.png": "p/y/b.png"}
    result = capt.prepare_features(store="other", dataset_type="csv", images=["p"], annotations=["c.csv"], **PIXELS)
    (failure,) = (row for row in report(result) if row["status"] == "failed")
    assert all(str(Path(path).absolute()) in failure["detail"] for path in ("p/x/a.png", "p/y/a.png"))


@pytest.mark.parametrize("roots", [["p", "q"], ["q", "p"]])
def test_files_of_equal_bytes_are_one_file_in_any_order_of_roots(roots: list[str]) -> None:
    draw(p__a=1, q__a=1)
    assert prepare(["a.png"], roots) == {"a.png": "p/a.png"}


# === Unicode and the kind of slash ===


@pytest.mark.parametrize(("named", "on_disk"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_name_matches_its_file_in_another_unicode_form(named: str, on_disk: str) -> None:
    draw(ph__a=1)
    Path("ph/a.png").rename(f"ph/{on_disk}")
    assert prepare([named], ["ph"]) == {named: f"ph/{on_disk}"}


def test_both_unicode_forms_on_disk_are_two_files_each_with_its_own_name() -> None:
    draw(ph__a=1, ph__b=2)
    Path("ph/a.png").rename(f"ph/{COMPOSED}")
    Path("ph/b.png").rename(f"ph/{DECOMPOSED}")
    assert prepare([COMPOSED, DECOMPOSED], ["ph"]) == {n: f"ph/{n}" for n in (COMPOSED, DECOMPOSED)}


def test_a_name_with_backslashes_matches_its_path() -> None:
    draw(ph__x__a=1)
    assert prepare([r"x\a.png", r"ph\x\a.png", r"y\a.png"], ["ph"]) == {
        r"x\a.png": "ph/x/a.png",
        r"ph\x\a.png": "ph/x/a.png",
        r"y\a.png": "missing",
    }


def test_a_folded_name_of_two_files_is_ambiguous() -> None:
    draw(ph__a=1, ph__b=2)
    Path("ph/a.png").rename("ph/x\\c.png")
    Path("ph/x").mkdir()
    Path("ph/b.png").rename("ph/x/c.png")
    assert prepare([r".\x\c.png"], ["ph"]) == {r".\x\c.png": "ambiguous"}


def test_a_zip_whose_utf_8_names_are_not_flagged_has_these_names() -> None:
    draw(a=1)
    stand_in = "c" * len(COMPOSED.encode())
    with zipfile.ZipFile("mac.zip", "w") as archive:
        archive.write("a.png", f"ph/{stand_in}")
    data = Path("mac.zip").read_bytes()
    Path("mac.zip").write_bytes(data.replace(stand_in.encode(), COMPOSED.encode()))
    flags = struct.unpack_from("<H", data, data.rindex(b"PK\1\2") + 8)[0]
    assert not flags & 0x800
    assert prepare([COMPOSED], ["mac.zip"])[COMPOSED] != "missing"
    assert len(capt.open_store("store").dataset("csv").catalog()) == 1


def test_a_missing_file_names_the_one_that_is_near() -> None:
    draw(ph__a=1)
    Path("ph/a.png").rename("ph/Photo.PNG")
    assert prepare(["photo.png"], ["ph"]) == {"photo.png": "missing"}
    result = capt.prepare_features(store="other", dataset_type="csv", images=["ph"], annotations=["c.csv"], **PIXELS)
    assert "Photo.PNG" in report(result)[0]["detail"]


# === Cost ===


def _walked(root: str, count: int) -> Iterator[ListedFile]:
    for number in range(count):
        name = f"item{number:06d}/image.jpg"
        yield ListedFile(name, FileReference(f"{root}/{name}"), 1, "s", 0)


def _steps(count: int, named: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Thousands of steps of SQLite that locating takes, for files that share their last part."""
    taken = [0]
    connect = sqlite3.connect

    def counting(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db = connect(*args, **kwargs)
        db.set_progress_handler(lambda: taken.__setitem__(0, taken[0] + 1), 1000)
        return db

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", counting)
        database = ImageDatabase(path / f"{count}.sqlite", path / "cache.sqlite")
    database.files.insert_files({"/d": _walked("/d", count)})
    names = [named.format(f"item{number:06d}") for number in range(count)]
    database.insert_records(InputRecord(name, name, "train", 0) for name in names)
    taken[0] = 0
    database.find_files()
    database.look_up_hashes()
    assert sum(1 for _ in database.list_unhashed()) == (0 if "none" in named else count)
    database.close()
    return taken[0]


@pytest.mark.parametrize("named", ["{}/image.jpg", r"{}\image.jpg", "none{}/image.jpg"])
def test_names_are_looked_up_by_index_however_many_files_share_their_last_part(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (_steps(count, named, tmp_path, monkeypatch) for count in (2_000, 16_000))
    assert many < 16 * few


@pytest.mark.slow
def test_a_hundred_thousand_names_take_few_steps_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _steps(100_000, "{}/image.jpg", tmp_path, monkeypatch) < 100_000
