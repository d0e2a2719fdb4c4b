"""Downloads one published file: resumes an interrupted download, and shows the file once it is complete and correct.

`NAME.part` contains the received bytes, `NAME.part.json` what the server reported about the file. A download resumes
only if the server confirms that the file is unchanged (`If-Range`). Otherwise it starts again. The complete part is
compared with its checksum, synced and renamed.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from urllib3 import BaseHTTPResponse

from features.io.atomic_files import replace_atomically, write
from features.io.retries import TransientError
from pipelines.beam.disk_errors import report_full_disk
from pipelines.fetch.published_files import PublishedFile
from pipelines.fetch.published_http import HINT, request
from schemas.errors import CaptError
from schemas.frozen import Frozen
from schemas.terminal.progress import progress_bar

# Seconds before each retry. The sequence starts again after an attempt that received more than all before.
WAITS: tuple[float, ...] = (1, 2, 4, 8, 16)
_CHUNK_BYTES = 1 << 18
_HASH_CHUNK_BYTES = 1 << 20
_GZIP_SUFFIXES = (".gz", ".tgz")
_GZIP_START = b"\x1f\x8b"

_DIGITS = r"[0-9]{1,20}"
_RANGE = re.compile(rf"bytes ({_DIGITS})-{_DIGITS}/({_DIGITS})")


_T = TypeVar("_T")
_log = logging.getLogger("capt.fetch")


class _FileInfo(Frozen):
    """What a server reports about a file: length of the whole file, strong entity tag, time of the last change."""

    url: str
    bytes: int
    etag: str
    modified: str


class FileDownload:
    """The download of one file from its own URL or a mirror's. `received` is the number of bytes from the network."""

    def __init__(self, file: PublishedFile, url: str, path: Path) -> None:
        self.name = file.name
        self.received = 0
        self.resumed = False
        self._file = file
        self._url = url
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._info_path = path.with_name(f"{path.name}.part.json")

    def count_missing(self) -> int:
        """Returns the number of bytes to receive. CaptError if the server does not have the file, or another one."""

        def request_info() -> _FileInfo:
            with request(self._url, {"Range": "bytes=0-0"}) as response:
                return _read_file_info(self._url, response, self._file.bytes)

        return self._retry(request_info, WAITS[:1]).bytes - self._part_size()

    def run(self) -> None:
        """Downloads the file. If it raises CaptError, the received bytes are kept for a later resume."""
        with report_full_disk(str(self._path.parent)):
            self._retry(self._receive, WAITS)
            mismatch = find_mismatch(self._file, self._part)
            if mismatch:
                self._discard()
                hint = "The received file was deleted. Run the same command again."
                message = f"the received file is not the published file: {mismatch}"
                raise CaptError(message, location=self._url, hint=hint)
            replace_atomically(self._part, self._path)
            self._discard()

    def _part_size(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._info_path.unlink(missing_ok=True)

    def _retry(self, step: Callable[[], _T], waits: tuple[float, ...]) -> _T:
        max_size, failures = self._part_size(), 0
        while True:
            try:
                return step()
            except TransientError as error:
                if self._part_size() > max_size:
                    max_size, failures = self._part_size(), 0
                if failures == len(waits):
                    hint = f"Check the network and its proxy. {HINT}"
                    raise CaptError(f"the connection fails: {error}", location=self._url, hint=hint) from error
                _log.info("%s: %s. Retrying in %g s.", self.name, error, waits[failures])
            time.sleep(waits[failures])
            failures += 1

    def _receive(self) -> None:
        info, size = self._read_info(), self._part_size()
        if info and size == info.bytes:
            return
        # RFC 9110, 13.1.5
        validator = (info.etag or info.modified) if info and size else ""
        resumable = info if validator else None
        headers = {"Range": f"bytes={size}-", "If-Range": validator} if validator else {}
        with request(self._url, headers) as response:
            if response.status == 200:
                size, resumable = 0, _read_file_info(self._url, response, self._file.bytes)
                self._discard()
                write(self._info_path, resumable.model_dump_json().encode())
            if not resumable or (size and not _continues(response, resumable, size)):
                self._discard()
                raise TransientError("the server sends something else than the rest of the file")
            self.resumed |= size > 0
            self._append(response, size, resumable.bytes)

    def _append(self, response: BaseHTTPResponse, size: int, total: int) -> None:
        with progress_bar(self.name, total >> 20, "MiB") as show, self._part.open("ab") as part:
            show(size >> 20, "")
            # `stream` treats a chunk of a negative size as the rest of the connection, and reads the rest into memory.
            while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
                size += len(chunk)
                self.received += len(chunk)
                if size > total:
                    self._discard()
                    raise CaptError(f"the server sends more than the declared {total:,} bytes", location=self._url)
                part.write(chunk)
                show(size >> 20, "")
        if size < total:
            raise TransientError(f"the connection ended after {size:,} of {total:,} bytes")

    def _read_info(self) -> _FileInfo | None:
        """Returns what the server reported when the part was begun; None if unknown, or for another URL."""
        try:
            info = _FileInfo.model_validate_json(self._info_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return info if info.url == self._url and self._part_size() <= info.bytes else None


def _read_file_info(url: str, response: BaseHTTPResponse, published_bytes: int | None) -> _FileInfo:
    """Reads a response with status 200 or 206. Refuses an unknown length, and one that is not the published file's."""
    if response.status == 206:
        size = _parse_range(response)[1]
    else:
        length = response.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch(_DIGITS, length) else published_bytes
    if size is None:
        raise CaptError("the server does not report the length of the file", location=url)
    if size != (published_bytes or size):
        message = f"the published file has {published_bytes:,} bytes, but the server's file has {size:,}"
        hint = "Check whether the URL leads to another file or to a login page."
        raise CaptError(message, location=url, hint=hint)
    # `If-Range` may repeat printable values and strong tags only.
    etag, modified = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    return _FileInfo(
        url=url,
        bytes=size,
        etag=etag if etag.isprintable() and not etag.startswith("W/") else "",
        modified=modified if modified.isprintable() else "",
    )


def _continues(response: BaseHTTPResponse, info: _FileInfo, first: int) -> bool:
    """Returns whether a response contains the rest of the file from byte `first` on."""
    is_same = response.headers.get("ETag", info.etag) == info.etag
    return response.status == 206 and _parse_range(response) == (first, info.bytes) and is_same


def _parse_range(response: BaseHTTPResponse) -> tuple[int | None, int | None]:
    """Returns the first byte of a partial response and the length of the whole file; None if unknown."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (int(match[1]), int(match[2])) if match else (None, None)


def find_mismatch(file: PublishedFile, path: Path) -> str:
    """Returns how a local file differs in length or checksum from the published file, as far as they are known.

    A compressed file of unknown checksum must at least begin like one. Empty if the file does not differ.
    """
    size = path.stat().st_size
    if size != (file.bytes or size):
        return f"expected {file.bytes:,} bytes, got {size:,}"
    if not file.checksum:
        is_other = file.name.endswith(_GZIP_SUFFIXES) and not _is_gzip(path)
        return "it is not a gzip file; the URL may lead to a page" if is_other else ""
    checksum = compute_checksum(path, file.checksum.partition(":")[0])
    return "" if checksum == file.checksum else f"expected {file.checksum}, got {checksum}"


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as data:
        return data.read(len(_GZIP_START)) == _GZIP_START


def compute_checksum(path: Path, algorithm: str = "sha256") -> str:
    """Returns the checksum of a file as in `PublishedFile`."""
    digest, size = hashlib.new(algorithm, usedforsecurity=False), path.stat().st_size
    with path.open("rb", buffering=0) as data, progress_bar(f"checking {path.name}", size >> 20, "MiB") as show:
        while chunk := data.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            show(data.tell() >> 20, "")
    return f"{algorithm}:{digest.hexdigest()}"
