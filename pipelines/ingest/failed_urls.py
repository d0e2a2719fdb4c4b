"""Dead links: addresses that failed for good, remembered beside the images that others gave.

DIR/dead/07.jsonl    an `Unfetched` a line, of the hosts whose bucket is 7
"""

from collections.abc import Iterator
from pathlib import Path

from schemas.frozen import Frozen


class FailedUrl(Frozen):
    """An address that gave no image.

    Args:
        url: str. The address.
        reason: str. As `features.references.downloads.DownloadError` words it.
        detail: str. What was seen.
        max_bytes: int. The limit then, for an image too large for it may fit another.
    """

    url: str
    reason: str
    detail: str
    max_bytes: int


def record_failed_urls(directory: Path, bucket: int, link: FailedUrl) -> None:
    """Add an address to those known to be dead; one thread at a time may, of a bucket."""
    path = directory / "dead" / f"{bucket:02x}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        # A killed run may have left part of a line.
        end = b"\n" if file.read(1) not in (b"", b"\n") else b""
        file.write(end + link.model_dump_json().encode() + b"\n")


def read_failed_urls(directory: Path, max_bytes: int) -> Iterator[FailedUrl]:
    """The addresses known to be dead, under a limit of bytes."""
    for path in sorted((directory / "dead").glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    link = FailedUrl.model_validate_json(line)
                except ValueError:  # The part of a line.
                    continue
                if link.reason != "too large" or max_bytes <= link.max_bytes:
                    yield link
