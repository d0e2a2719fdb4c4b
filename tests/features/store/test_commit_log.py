"""Commits are atomic, none is lost, and errors locate corruption."""

import multiprocessing
from pathlib import Path

import pytest

from features.io.atomic_files import atomic_write, put_if_absent
from features.io.temporary_names import is_temporary
from features.store.commit_log import CommitLog
from schemas.errors import CorruptFileError, StoreError
from schemas.manifests import DatasetMetadata, DroppedMetadata, FileEntry, Manifest

DIGEST = "ab" * 32


def manifest(name: str, replaces: tuple[str, ...] = ()) -> Manifest:
    entry = FileEntry(path=f"c/{name}.parquet", bytes=1, sha256=DIGEST)
    facts = DatasetMetadata(source="folder", images={"train": 1})
    return Manifest(table="folder", replaces=replaces, files={"catalog": entry}, facts=facts)


def append_many(root: Path, names: list[str]) -> None:
    for name in names:
        CommitLog(root).append(manifest(name))


def test_commits_are_returned_in_order(tmp_path: Path) -> None:
    append_many(tmp_path, ["one", "two", "three"])
    assert [m.files["catalog"].path for m in CommitLog(tmp_path).live()] == [
        f"c/{n}.parquet" for n in ("one", "two", "three")
    ]


def test_a_replaced_commit_is_superseded(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    first = log.append(manifest("one"))
    second = log.append(manifest("two", replaces=(first,)))
    assert [m.digest for m in log.live()] == [second]
    assert log.entries() == [first, second]


def test_appending_an_equal_commit_adds_no_entry(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    assert log.append(manifest("one")) == log.append(manifest("one"))
    assert len(log.entries()) == 1


def test_a_superseded_commit_can_be_committed_again(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    for _ in range(3):
        log.append(manifest("one"))
        (live,) = log.live()
        assert live.files == manifest("one").files
        gone = manifest("one").model_copy(update={"files": {}, "facts": DroppedMetadata(), "replaces": (live.digest,)})
        log.append(gone)
        assert log.live() == []
    assert len(log.entries()) == 6


def test_readers_and_writers_report_a_gap_in_the_log_as_corrupt(tmp_path: Path) -> None:
    append_many(tmp_path, ["one", "two", "three"])
    (tmp_path / "log" / "00000002.json").unlink()
    with pytest.raises(CorruptFileError, match=r"00000002\.json: the log entry is missing"):
        CommitLog(tmp_path).live()
    with pytest.raises(CorruptFileError, match="missing"):
        CommitLog(tmp_path).append(manifest("four"))


def test_concurrent_processes_lose_no_commit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    names = [[f"{worker}-{number}" for number in range(10)] for worker in range(3)]
    processes = [context.Process(target=append_many, args=(tmp_path, some)) for some in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(CommitLog(tmp_path).entries()) == 30
    assert {m.files["catalog"].path for m in CommitLog(tmp_path).live()} == {
        f"c/{name}.parquet" for some in names for name in some
    }


def test_the_error_for_an_edited_manifest_has_both_digests(tmp_path: Path) -> None:
    digest = CommitLog(tmp_path).append(manifest("one"))
    path = tmp_path / "manifests" / f"{digest}.json"
    path.write_bytes(path.read_bytes().replace(b'"bytes":1', b'"bytes":2'))
    with pytest.raises(CorruptFileError, match=f"expected SHA-256 {digest}, got "):
        CommitLog(tmp_path).live()


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"version": "x"}', b'{"version": 1, "stray": 2}'])
def test_an_invalid_manifest_is_corrupt(tmp_path: Path, text: bytes) -> None:
    digest = CommitLog(tmp_path).append(manifest("one"))
    (tmp_path / "manifests" / f"{digest}.json").write_bytes(text)
    with pytest.raises(CorruptFileError, match="corrupt"):
        CommitLog(tmp_path).live()


def test_the_error_for_a_newer_manifest_has_its_version(tmp_path: Path) -> None:
    digest = CommitLog(tmp_path).append(manifest("one"))
    (tmp_path / "manifests" / f"{digest}.json").write_bytes(b'{"version": 99}')
    with pytest.raises(StoreError, match="version 99"):
        CommitLog(tmp_path).live()


def test_the_error_locates_a_missing_manifest_or_a_corrupt_entry(tmp_path: Path) -> None:
    digest = CommitLog(tmp_path).append(manifest("one"))
    (tmp_path / "manifests" / f"{digest}.json").unlink()
    with pytest.raises(CorruptFileError, match="the manifest is missing"):
        CommitLog(tmp_path).live()
    (tmp_path / "log" / "00000001.json").write_bytes(b"garbage")
    with pytest.raises(CorruptFileError, match="log entry is corrupt"):
        CommitLog(tmp_path).live()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "", "a//b", "a/./b"])
def test_a_manifest_cannot_reference_a_file_outside_its_table(path: str) -> None:
    with pytest.raises(ValueError, match="inside the table"):
        FileEntry(path=path, bytes=1, sha256=DIGEST)


def test_a_file_is_written_atomically(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def write_half() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert not [path for path in tmp_path.iterdir() if is_temporary(path)]


def test_put_if_absent_succeeds_for_one_of_two_writers(tmp_path: Path) -> None:
    assert put_if_absent(tmp_path / "file", b"first")
    assert not put_if_absent(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
