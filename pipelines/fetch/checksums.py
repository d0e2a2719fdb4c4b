"""Checksums: a file here, held against the length and the digest of the published one."""

import hashlib
from pathlib import Path

from pipelines.fetch.published_files import PublishedFile
from schemas.terminal.progress import progress_bar

_CHUNK = 1 << 20


def mismatch(file: PublishedFile, path: Path) -> str:
    """How the file at `path` differs from the published one, expected and got; empty where it does not."""
    size = path.stat().st_size
    if size != (file.bytes or size):
        return f"expected {file.bytes:,} bytes, got {size:,}"
    algorithm, _, _ = file.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb", buffering=0) as data, progress_bar(f"checking {file.name}", size >> 20, "MiB") as show:
        while chunk := data.read(_CHUNK):
            digest.update(chunk)
            show(data.tell() >> 20, "")
    found = f"{algorithm}:{digest.hexdigest()}"
    return "" if found == file.checksum else f"expected {file.checksum}, got {found}"
