"""Objects and archives in buckets are listed and read, from real servers on loopback."""

import io
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.inputs import FileReference, list_files
from features.io import retries
from schemas.errors import CaptError, RecordError, UsageError
from tests.features.buckets import BUCKET, gs_server, put_gs, put_s3, s3_server

Put = Callable[[str, bytes], str]


@pytest.fixture(scope="module", params=["s3", "gs"])
def put(request: pytest.FixtureRequest) -> Iterator[Put]:
    """A function that puts an object into a server's bucket and returns its URI."""
    server, put_one = {"s3": (s3_server, put_s3), "gs": (gs_server, put_gs)}[request.param]
    with server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield lambda key, data: put_one(environment, key, data)


def contents(uri: str) -> dict[str, bytes]:
    return {entry.name: entry.reference.read() for entry in list_files(uri)}


def make_zip(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def make_tar(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


FILES = {"a.jpg": b"first", "deep/er/b.jpg": b"second" * 50_000, "odd ?#%20é.jpg": b"third"}


def test_a_prefix_is_listed_like_a_directory(put: Put) -> None:
    before = time.time_ns()
    for name, data in {**FILES, ".hidden.jpg": b"x", ".git/d.jpg": b"x"}.items():
        uri = put(f"listed/{name}", data)
    put("listed-not/e.jpg", b"x")
    root = f"{uri.split('://')[0]}://{BUCKET}/listed"
    assert contents(root) == contents(f"{root}/") == FILES
    (file,) = (entry for entry in list_files(root) if entry.name == "deep/er/b.jpg")
    assert (file.size, file.reference) == (300_000, FileReference(f"{root}/deep/er/b.jpg"))
    assert file.modified_ns > before - 2_000_000_000


@pytest.mark.parametrize("pack", [make_zip, make_tar])
def test_archives_in_a_bucket_are_read_in_place(put: Put, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    uri = put(f"archives/{pack.__name__}", pack(FILES))
    assert contents(uri) == contents(f"{uri}/") == FILES


def test_a_replaced_archive_has_other_stamps(put: Put) -> None:
    for pack in (make_zip, make_tar):
        (before,) = list_files(put("again/archive", pack({"a.jpg": b"one"})))
        (after,) = list_files(put("again/archive", pack({"a.jpg": b"two"})))
        assert before.stamp != after.stamp


def test_an_object_is_read_within_the_limit(put: Put) -> None:
    reference = FileReference(put("captions.json", b"{}" * 50))
    assert reference.read(100) == b"{}" * 50
    with pytest.raises(RecordError, match="too large"):
        reference.read(99)
    # The GCS server of the tests refuses to store an empty object.
    if reference.location.startswith("s3://"):
        assert FileReference(put("empty.json", b"")).read(100) == b""


def test_missing_objects_and_buckets_are_errors(put: Put) -> None:
    scheme = put("here.jpg", b"x").split("://")[0]
    for name in (f"{BUCKET}/nothing", "no-such-bucket", "no-such-bucket/images"):
        with pytest.raises(UsageError, match="the bucket is missing, or contains nothing"):
            list(list_files(f"{scheme}://{name}"))
        with pytest.raises(RecordError) as caught:
            FileReference(f"{scheme}://{name}/a.jpg").read()
        assert (caught.value.reason, caught.value.permanent) == ("missing", False)
    with pytest.raises(UsageError, match="neither a directory nor"):
        list(list_files(f"{scheme}://{BUCKET}/here.jpg"))


def test_corrupt_and_compressed_archives_in_a_bucket_are_wrong_usage(put: Put) -> None:
    with pytest.raises(UsageError, match="incomplete"):
        list(list_files(put("cut.tar", make_tar(FILES)[:3000])))
    with pytest.raises(UsageError, match=r"gunzip a\.tgz"):
        list(list_files(put("a.tgz", b"\x1f\x8b" + bytes(100))))


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_an_unreachable_service_fails_soon(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(retries, "BASE_SECONDS", 0.01)
    for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(CaptError, match="cannot be reached") as caught:
        list(list_files(f"{scheme}://bucket/images"))
    with pytest.raises(RecordError, match="unreadable"):
        FileReference(f"{scheme}://bucket/a.jpg").read()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


def test_refused_credentials_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """moto checks signatures after these settings."""
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        put_s3(environment, "a.jpg", b"")
        monkeypatch.setattr("moto.core.responses.ActionAuthenticatorMixin.request_count", 0)
        monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
        with pytest.raises(CaptError, match="Check the URI, the credentials") as caught:
            list(list_files(f"s3://{BUCKET}/a"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("ftp://host/images", "only s3:// and gs:// are"),
        ("http://host/a.zip", "only s3:// and gs:// are"),
        ("s3:///images", "has no bucket"),
        ("s3://key:secret@bucket/images", "contains credentials"),
    ],
)
def test_invalid_uris_are_wrong_usage_and_secrets_are_not_printed(uri: str, line: str) -> None:
    with pytest.raises(UsageError, match=line) as caught:
        list(list_files(uri))
    assert "secret" not in str(caught.value)
    with pytest.raises(RecordError, match="unreadable"):
        FileReference(uri).read()
