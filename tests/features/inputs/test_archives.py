"""Tars are listed and read in place, and hostile ones are refused."""

import contextlib
import io
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.inputs import list_files
from schemas.errors import RecordError, UsageError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def tar_of(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def contents(root: Path) -> dict[str, bytes]:
    return {entry.name: entry.reference.read() for entry in list_files(str(root))}


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_of_any_usual_format_is_read_in_place(tmp_path: Path, form: int) -> None:
    long = "/".join(["a" * 60] * 3) + ".jpg"
    path = tar_of(tmp_path / "a.tar", [("./b/c.jpg", b"first"), ("é.jpg", b"second"), (long, b"x" * 2000)], form)
    assert contents(path) == {"b/c.jpg": b"first", "é.jpg": b"second", long: b"x" * 2000}
    assert {entry.size for entry in list_files(str(path))} == {5, 6, 2000}
    assert [one.name for one in tmp_path.iterdir()] == ["a.tar"]


def test_long_names_are_listed_in_gnu_and_pax_tars(tmp_path: Path) -> None:
    for form in FORMATS[1:]:
        assert list(contents(tar_of(tmp_path / "a.tar", [("日" * 300 + ".jpg", b"x")], form)).values()) == [b"x"]


def test_the_last_member_of_a_repeated_name_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [("a.jpg", b"old"), ("b.jpg", b"b"), ("./a.jpg", b"new")]
    assert contents(tar_of(tmp_path / "a.tar", members)) == {"a.jpg": b"new", "b.jpg": b"b"}
    assert "1 repeated names" in caplog.text


def test_hidden_members_and_directories_of_a_tar_are_not_listed(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    device = tarfile.TarInfo("device.jpg")
    device.type = tarfile.CHRTYPE
    hidden: list[tuple[str | tarfile.TarInfo, bytes]] = [(name, b"") for name in (".a.jpg", ".b/c.jpg", "d/._e.jpg")]
    assert contents(tar_of(tmp_path / "a.tar", [(folder, b""), (device, b""), *hidden, ("f.jpg", b"f")])) == {
        "f.jpg": b"f"
    }


def test_a_repacked_tar_has_other_stamps_and_old_references_fail(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", [("a.jpg", b"one"), ("b.jpg", b"two")])
    before = {entry.name: entry for entry in list_files(str(path))}
    tar_of(path, [("b.jpg", b"two"), ("a.jpg", b"one")])
    after = {entry.name: entry for entry in list_files(str(path))}
    assert all(before[name].stamp != after[name].stamp for name in before)
    with pytest.raises(RecordError, match="missing"):
        before["a.jpg"].reference.read()


def test_a_tar_without_members_is_empty(tmp_path: Path) -> None:
    assert contents(tar_of(tmp_path / "a.tar", [])) == {}


@pytest.mark.parametrize(("suffix", "command"), [("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")])
def test_a_compressed_tar_is_refused_with_its_command(tmp_path: Path, suffix: str, command: str) -> None:
    path = tmp_path / f"a.tar.{suffix}"
    with tarfile.open(path, f"w:{suffix}") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(UsageError, match=f"{command} a.tar.{suffix} first"):
        list(list_files(str(path)))


# What macOS adds to archives is no image.
PARTS = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/.\\"), min_size=1, max_size=8
).filter(lambda part: part != "__MACOSX")


NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join).map(lambda name: f"{name}.jpg")


@settings(max_examples=25, deadline=None)
@given(files=st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5), form=st.sampled_from(FORMATS[1:]))
def test_a_directory_a_zip_and_a_tar_of_the_same_files_list_the_same(files: dict[str, bytes], form: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "folder").mkdir()
        for name, data in files.items():
            (root / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "folder" / name).write_bytes(data)
        with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        tar_of(root / "a.tar", list(files.items()), form)
        with tarfile.open(root / "b.tar", "w", format=form) as archive:
            archive.add(root / "folder", ".")
        assert all(contents(root / one) == files for one in ("folder", "a.zip", "a.tar", "b.tar"))


def linked(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("link.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def sparse(path: Path) -> Path:
    """A member of GNU's old sparse kind, which says to be of 8 GiB and holds nothing."""
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT)[:512])
    header[156:157] = b"S"
    header[483:495] = b"77777777777\0"
    path.write_bytes(summed(header) + bytes(1024))
    return path


def summed(header: bytearray) -> bytes:
    """A header with its checksum set right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def reason(path: Path, max_bytes: int = 1 << 20) -> str:
    (entry,) = list_files(str(path))
    with pytest.raises(RecordError) as caught:
        entry.reference.read(max_bytes)
    assert not caught.value.permanent
    return caught.value.reason


def test_links_sparse_and_large_members_of_a_tar_fail_with_their_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    assert reason(tar_of(path, [(linked(tarfile.SYMTYPE), b"")])) == "symbolic link"
    assert reason(tar_of(path, [(linked(tarfile.LNKTYPE), b"")])) == "hard link"
    assert reason(tar_of(path, [("a.jpg", bytes(2000))]), 1999) == "too large"
    assert reason(sparse(path)) == "sparse"
    odd: list[tuple[str | tarfile.TarInfo, bytes]] = [("../../escaped.jpg", b"a"), ("/absolute.jpg", b"b")]
    assert contents(tar_of(path, odd)) == {"../../escaped.jpg": b"a", "/absolute.jpg": b"b"}
    assert not (tmp_path.parent.parent / "escaped.jpg").exists()
    assert not Path("/absolute.jpg").exists()


def cut_in_a_member(data: bytearray) -> bytes:
    return bytes(data[:2000])


def cut_in_a_header(data: bytearray) -> bytes:
    return bytes(data[: 2 * 512 + 100])


def cut_between_members(data: bytearray) -> bytes:
    return bytes(data[: 2 * 512])


def wrong_checksum(data: bytearray) -> bytes:
    data[2 * 512] ^= 1
    return bytes(data)


def size_beyond_the_end(data: bytearray) -> bytes:
    data[1024 + 124 : 1024 + 136] = b"77777777777\0"
    return bytes(data[:1024]) + summed(data[1024:1536]) + bytes(data[1536:])


def size_below_zero(data: bytearray) -> bytes:
    data[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xf0\0"
    return bytes(data[:1024]) + summed(data[1024:1536]) + bytes(data[1536:])


def size_that_leads_back(data: bytearray) -> bytes:
    data[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xfa\0"
    return bytes(data[:1024]) + summed(data[1024:1536]) + bytes(data[1536:])


def name_of_a_gibibyte(data: bytearray) -> bytes:
    data[1024 + 124 : 1024 + 136] = b"%011o\0" % (1 << 30)
    data[1024 + 156 : 1024 + 157] = b"L"
    return bytes(data[:1024]) + summed(data[1024:1536]) + bytes(data[1536:])


def headers_of_headers(data: bytearray) -> bytes:
    data[1024 + 156 : 1024 + 157] = b"L"
    header = summed(data[1024:1536])
    return bytes(data[:1024]) + (header + bytes(512) * 2) * 5000 + bytes(1024)


@pytest.mark.parametrize(
    "damage",
    [
        cut_in_a_member,
        cut_in_a_header,
        cut_between_members,
        wrong_checksum,
        size_beyond_the_end,
        size_below_zero,
        size_that_leads_back,
        name_of_a_gibibyte,
        headers_of_headers,
    ],
)
def test_a_corrupt_tar_is_wrong_usage(tmp_path: Path, damage: Callable[[bytearray], bytes]) -> None:
    path = tar_of(tmp_path / "a.tar", [("a.jpg", bytes(10)), ("b.jpg", bytes(1000))])
    path.write_bytes(damage(bytearray(path.read_bytes())))
    with pytest.raises(UsageError, match="incomplete") as caught:
        next(list_files(str(path)))
    assert "\n" not in str(caught.value)


BASE = io.BytesIO()


with tarfile.open(fileobj=BASE, mode="w", format=tarfile.PAX_FORMAT) as _archive:
    for _name in ("é.jpg", "b" * 120, "c.jpg"):
        _info = tarfile.TarInfo(_name)
        _info.size = 600
        _archive.addfile(_info, io.BytesIO(b"data" * 150))


TAR = BASE.getvalue()[:8192]


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, len(TAR) - 1), st.integers(0, 255)), min_size=1, max_size=5), st.booleans())
def test_randomly_changed_tars_are_read_or_refused(changes: list[tuple[int, int]], right: bool) -> None:
    data = bytearray(TAR)
    for place, value in changes:
        data[place] = value
        if right:
            start = place // 512 * 512
            data[start : start + 512] = summed(data[start : start + 512])
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(data)
        file.flush()
        try:
            found = list(list_files(file.name))
        except UsageError:
            return
        for entry in found:
            with contextlib.suppress(RecordError):
                assert len(entry.reference.read(1000)) <= 1000


def test_a_tar_whose_global_headers_grow_with_its_members_is_refused(tmp_path: Path) -> None:
    # Each member gets a copy of all of them, so that time would grow with the square of the archive.
    with (tmp_path / "a.tar").open("wb") as file:
        for number in range(20):
            headers = {f"key{number}.{one}": "x" for one in range(100)}
            file.write(tarfile.TarInfo.create_pax_global_header(headers))
            file.write(tarfile.TarInfo(f"{number}.jpg").tobuf())
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    with pytest.raises(UsageError, match="global headers"):
        list(list_files(str(tmp_path / "a.tar")))


# === Names of unknown encoding ===


def zip_with_raw_names(path: Path, names: dict[str, bytes], field: bytes = b"") -> Path:
    """Writes a zip whose members, named by their contents, have these raw names without the UTF-8 flag."""
    with zipfile.ZipFile(path, "w") as archive:
        for content, raw in names.items():
            info = zipfile.ZipInfo(content * len(raw))
            info.extra = field
            archive.writestr(info, content)
    data = path.read_bytes()
    for content, raw in names.items():
        data = data.replace(content.encode() * len(raw), raw)
    path.write_bytes(data)
    return path


def known_names(root: Path) -> dict[str, bool]:
    return {entry.name: entry.has_known_name for entry in list_files(str(root))}


def test_a_name_in_a_zip_of_another_encoding_than_utf_8_is_not_known(tmp_path: Path) -> None:
    path = zip_with_raw_names(
        tmp_path / "a.zip", {"0": b"abc.png", "1": "да.png".encode(), "2": "да.png".encode("cp866")}
    )
    garbled = "да.png".encode("cp866").decode("cp437")
    assert known_names(path) == {"abc.png": True, "да.png": True, garbled: False}
    assert contents(path) == {"abc.png": b"0", "да.png": b"1", garbled: b"2"}


def test_the_unicode_path_field_of_a_zip_has_the_name(tmp_path: Path) -> None:
    raw, name = "да.png".encode("cp866"), "да.png".encode()
    for number, (crc, known) in enumerate(((zlib.crc32(raw), True), (0, False))):
        field = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, crc) + name
        path = zip_with_raw_names(tmp_path / f"{number}.zip", {"0": raw}, field)
        assert ("да.png" in known_names(path), contents(path)) == (known, dict.fromkeys(known_names(path), b"0"))


@pytest.mark.parametrize("field_name", ["abc.png", "да.png"])
def test_the_unicode_path_field_may_repeat_or_replace_an_ascii_name(tmp_path: Path, field_name: str) -> None:
    raw, name = b"abc.png", field_name.encode()
    field = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, zlib.crc32(raw)) + name
    assert known_names(zip_with_raw_names(tmp_path / "a.zip", {"0": raw}, field)) == {field_name: True}


def test_a_name_in_a_tar_that_is_not_utf_8_is_not_known(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="cp866") as archive:
        for name in ("abc.png", "да.png"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert known_names(tmp_path / "a.tar") == {"abc.png": True, r"\xa4\xa0.png": False}


@pytest.mark.parametrize("end", [b"", b"PAR1", b"\1\0\0\0PAR1"])
def test_a_corrupt_parquet_file_is_refused_when_it_is_opened(tmp_path: Path, end: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(b"PAR1" + bytes(100) + end)
    with pytest.raises(UsageError, match="corrupt"):
        list(list_files(str(tmp_path / "a.zip")))
