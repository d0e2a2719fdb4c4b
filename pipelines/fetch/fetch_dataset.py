"""Downloads the published files of a dataset (`capt fetch`).

If no checksum of a file is known, the SHA-256 of the first download is written to `NAME.sha256`, in the format of
`sha256sum`. Later runs compare the file with it.
"""

import logging
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from features.io.atomic_files import make_directory, write
from features.io.locations import local_path
from features.io.locks import wait_for_lock
from pipelines.fetch.file_download import FileDownload, compute_checksum, find_mismatch
from pipelines.fetch.published_files import PUBLISHED, Publication, PublishedFile
from schemas.errors import CaptError, UsageError
from schemas.options.data import Fetch
from schemas.terminal.console import Printer

_RECORD = re.compile(r"\s*([0-9a-fA-F]{64})\b")

_log = logging.getLogger("capt.fetch")


def fetch_dataset(options: Fetch) -> dict[str, Any]:
    """Downloads the files of a dataset that the directory lacks, and verifies those that it contains.

    Returns:
        `files` by name, each with `state` (`present`, `fetched`, `resumed`), `bytes`, `checksum` and `is_published`
        (whether others have recorded this checksum; otherwise this directory has); `skipped` (number
        of present files), `corrupt` (names of present files that were corrupt), `resumed` (number of resumed
        downloads), `bytes` (received), `seconds`, and `next` (commands that use the files).

    Raises:
        UsageError: The dataset, file or mirror URL is invalid.
        CaptError: The server refuses or cannot be reached, the disk is too small, or a file is not the published one.
    """
    started = time.monotonic()
    if options.dataset not in PUBLISHED:
        raise UsageError(f"unknown dataset {options.dataset!r}", hint=f"Use one of {', '.join(PUBLISHED)}.")
    publication = PUBLISHED[options.dataset]
    files = _select_files(publication.files, options.only, options.dataset)
    mirror_url = _check_mirror(options.mirror_url)
    directory = local_path(options.directory)
    try:
        make_directory(directory)
    except OSError as error:
        message = f"the directory cannot be created: {error.strerror}"
        raise UsageError(message, location=options.directory) from error
    with wait_for_lock(directory / ".fetching.lock"):
        unpublished = {file.name for file in files if not file.checksum}
        files = [file if file.checksum else _read_recorded(file, directory) for file in files]
        corrupt = _find_corrupt(files, directory)
        downloads = [
            FileDownload(file, f"{mirror_url}/{file.name}" if mirror_url else file.url, directory / file.name)
            for file in files
            if file.name in corrupt or not (directory / file.name).exists()
        ]
        _check_disk(downloads, directory)
        for download in downloads:
            download.run()
        files = [file if file.checksum else _record(file, directory) for file in files]
    states = {download.name: "resumed" if download.resumed else "fetched" for download in downloads}
    described = {}
    for file in files:
        size, state = (directory / file.name).stat().st_size, states.get(file.name, "present")
        is_published = file.name not in unpublished
        described[file.name] = {
            "state": state,
            "bytes": size,
            "checksum": file.checksum,
            "is_published": is_published,
        }
    return {
        "dataset": options.dataset,
        "directory": options.directory,
        "files": described,
        "skipped": len(files) - len(downloads),
        "corrupt": corrupt,
        "resumed": sum(download.resumed for download in downloads),
        "bytes": sum(download.received for download in downloads),
        "seconds": round(time.monotonic() - started, 3),
        "next": _complete_commands(publication, directory, options.directory),
    }


def print_fetched(result: dict[str, Any]) -> None:
    printer = Printer()
    rows = [(name, file["state"], file["bytes"]) for name, file in result["files"].items()]
    printer.table(f"{result['dataset']} in {result['directory']}", ("file", "state"), ("bytes",), rows)
    for name, file in result["files"].items():
        if not file["is_published"]:
            printer.line(f"No checksum of {name} is published. Verified against {name}.sha256: {file['checksum']}")
    if result["next"]:
        printer.line("Commands that use these files:")
        for command in result["next"]:
            printer.line(f"  {command}")


def _select_files(files: Sequence[PublishedFile], only: Sequence[str], dataset: str) -> list[PublishedFile]:
    names = [file.name for file in files]
    for name in only:
        if name not in names:
            hint = f"Use one of {', '.join(names)}."
            raise UsageError(f"{dataset} has no file {name!r}", location="--only", hint=hint)
    return [file for file in files if (file.name in only if only else not file.extra)]


def _check_mirror(url: str | None) -> str:
    """Returns the mirror's URL without a slash at its end; empty without a mirror."""
    if url is None:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(sign in url for sign in "@?#"):
        message = "the URL must be http or https, without user, query and fragment"
        raise UsageError(message, location=f"--mirror-url {url}")
    return url.rstrip("/")


def _read_recorded(file: PublishedFile, directory: Path) -> PublishedFile:
    """Returns the file with the checksum that an earlier run has recorded; unchanged without one.

    Raises:
        CaptError: The record cannot be read.
    """
    path = _record_path(file, directory)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return file
    except (OSError, UnicodeDecodeError) as error:
        raise CaptError(f"the file cannot be read: {error}", location=str(path)) from None
    match = _RECORD.match(text)
    if not match:
        hint = f"Write the output of `sha256sum {file.name}`, or delete the file."
        raise CaptError("the file does not begin with a SHA-256", location=str(path), hint=hint)
    return replace(file, checksum=f"sha256:{match[1].lower()}")


def _record(file: PublishedFile, directory: Path) -> PublishedFile:
    """Writes the checksum of a file that has none, and returns the file with it."""
    checksum = compute_checksum(directory / file.name)
    write(_record_path(file, directory), f"{checksum.partition(':')[2]}  {file.name}\n".encode())
    message = "No checksum of %s is published, so its origin is not verified. Its SHA-256 is recorded in %s.sha256."
    _log.warning(message, file.name, file.name)
    return replace(file, checksum=checksum)


def _record_path(file: PublishedFile, directory: Path) -> Path:
    return directory / f"{file.name}.sha256"


def _find_corrupt(files: Sequence[PublishedFile], directory: Path) -> list[str]:
    """Returns the names of present files that differ from the published ones."""
    corrupt = []
    for file in files:
        path = directory / file.name
        if path.exists() and (mismatch := find_mismatch(file, path)):
            _log.warning("%s is corrupt and is downloaded again: %s", path, mismatch)
            corrupt.append(file.name)
    return corrupt


def _check_disk(downloads: Sequence[FileDownload], directory: Path) -> None:
    """Logs the sizes of the downloads. Refuses more than the disk can hold."""
    if not downloads:
        return
    sizes = {download.name: download.count_missing() for download in downloads}
    total, free = sum(sizes.values()), shutil.disk_usage(directory).free
    details = ", ".join(f"{name} {_format_size(size)}" for name, size in sizes.items())
    _log.info("Downloading %s (%s). Free in %s: %s.", _format_size(total), details, directory, _format_size(free))
    if total > free:
        message = f"the downloads need {_format_size(total)}, but {_format_size(free)} are free"
        hint = "Free some space, or select fewer files with --only."
        raise CaptError(message, location=str(directory), hint=hint)


def _format_size(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"


def _complete_commands(publication: Publication, directory: Path, name: str) -> list[str]:
    """Returns the commands whose files are all present, with the directory as the user named it."""
    missing = [f"{{dir}}/{file.name}" for file in publication.files if not (directory / file.name).exists()]
    return [
        command.replace("{dir}", shlex.quote(name))
        for command in publication.commands
        if not any(file in command.split() for file in missing)
    ]
