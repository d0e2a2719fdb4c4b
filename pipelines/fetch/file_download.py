"""Transfers: one file from a web server to its place, resumed after a break, visible only once it is whole and right.

`NAME.part` holds what has arrived, `NAME.part.json` what the server said of the file. What has arrived is gone on with
only where the server says that the file is still the same one (`If-Range`); a file that changed meanwhile, or a server
that cannot send the rest alone, begins anew. The whole part is held against its checksum, synced and renamed.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from urllib3 import BaseHTTPResponse

from features.io.atomic_files import replace_atomically, write
from pipelines.beam.disk_errors import report_full_disk
from pipelines.fetch.checksums import mismatch
from pipelines.fetch.http import BrokenTransferError, describe_unreachable, request
from pipelines.fetch.published_files import PublishedFile
from pipelines.fetch.remote_file_info import RemoteFileInfo, request_file_info
from schemas.errors import CaptError
from schemas.terminal.progress import progress_bar

# Seconds before each further try; from the first again whenever more has arrived than ever before.
WAITS: tuple[float, ...] = (1, 2, 4, 8, 16)
_CHUNK = 1 << 18

_T = TypeVar("_T")
_log = logging.getLogger("capt.fetch")


class Transfer:
    """One file on its way to its place.

    Args:
        file: PublishedFile. What is fetched.
        address: str. Where from: the file's own address, or a mirror's.
        path: Path. Where it goes.

    Attributes:
        name: str. The file's name.
        received: int. Bytes that came over the network.
        resumed: bool. Whether what had arrived before a break was gone on with.
    """

    def __init__(self, file: PublishedFile, address: str, path: Path) -> None:
        self.name = file.name
        self.received = 0
        self.resumed = False
        self._file = file
        self._address = address
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")

    @property
    def arrived(self) -> int:
        """Bytes of the file that lie here already."""
        return self._part.stat().st_size if self._part.is_file() else 0

    def announced(self) -> RemoteFileInfo:
        """What the server says of the file; CaptError where it has none, or another one than was published."""
        return self._tried(self._ask, WAITS[:1])

    def run(self) -> None:
        """Fetch the file; CaptError where that cannot be, which leaves what has arrived for another time."""
        with report_full_disk(str(self._path.parent)):
            self._tried(self._receive, WAITS)
            wrong = mismatch(self._file, self._part)
            if wrong:
                self.discard()
                raise CaptError(
                    f"what arrived is not the published file: {wrong}",
                    location=self._address,
                    hint="it was removed; the same command begins anew",
                )
            replace_atomically(self._part, self._path)
            self.discard()

    def discard(self) -> None:
        """Forget what has arrived."""
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _tried(self, step: Callable[[], _T], waits: tuple[float, ...]) -> _T:
        most, failures = self.arrived, 0
        while True:
            try:
                return step()
            except BrokenTransferError as error:
                if self.arrived > most:
                    most, failures = self.arrived, 0
                if failures == len(waits):
                    raise describe_unreachable(self._address, error) from error
                _log.info("%s: %s; trying again in %g s", self.name, error, waits[failures])
            time.sleep(waits[failures])
            failures += 1

    def _ask(self) -> RemoteFileInfo:
        with request(self._address, {"Range": "bytes=0-0"}) as response:
            return request_file_info(self._address, response, self._file.bytes)

    def _receive(self) -> None:
        """Fetch what is missing, with one request."""
        known, have = self._remembered(), self.arrived
        if known and have == known.bytes:
            return
        goes_on = known if known and known.validator and have else None
        headers = {"Range": f"bytes={have}-", "If-Range": goes_on.validator} if goes_on else {}
        with request(self._address, headers) as response:
            if response.status == 200:
                have, goes_on = 0, request_file_info(self._address, response, self._file.bytes)
                self.discard()
                write(self._note, goes_on.model_dump_json().encode())
            if not goes_on or (have and not goes_on.continued_by(response, have)):
                self.discard()
                raise BrokenTransferError("the server sends something else than the file's rest; it begins anew")
            self.resumed |= have > 0
            self._append(response, have, goes_on.bytes)

    def _append(self, response: BaseHTTPResponse, have: int, total: int) -> None:
        with progress_bar(self.name, total >> 20, "MiB") as show, self._part.open("ab") as part:
            show(have >> 20, "")
            # `stream` takes a chunk of a negative size for the whole rest of the connection, into memory.
            while chunk := response.read1(_CHUNK, decode_content=False):
                have += len(chunk)
                self.received += len(chunk)
                if have > total:
                    self.discard()
                    raise CaptError(
                        f"the server sends more than the {total:,} bytes it announced", location=self._address
                    )
                part.write(chunk)
                show(have >> 20, "")
        if have < total:
            raise BrokenTransferError(f"the connection ended after {have:,} of {total:,} bytes")

    def _remembered(self) -> RemoteFileInfo | None:
        """What the server said when the part was begun; None where that is not known or was another address."""
        try:
            known = RemoteFileInfo.model_validate_json(self._note.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return known if known.address == self._address and self.arrived <= known.bytes else None
