"""`capt fetch`: the published files of a dataset, resumed after a break and held against their checksums."""

import logging
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from features.io.atomic_files import make_directory
from features.io.locations import local_path
from pipelines.beam.scratch import hold_job_lock
from pipelines.fetch.checksums import mismatch
from pipelines.fetch.file_download import Transfer
from pipelines.fetch.published_files import PUBLISHED, Publication, PublishedFile
from schemas.errors import CaptError, UsageError
from schemas.options.data import Fetch
from schemas.terminal.console import Printer

_LOCK = ".fetching.lock"

_log = logging.getLogger("capt.fetch")


def fetch_dataset(options: Fetch) -> dict[str, Any]:
    """Fetch the files of a dataset that are not in the directory yet; those that are there are checked, not fetched.

    Args:
        options: The dataset, the directory that the files go to, and which files.

    Returns:
        dict. `files` by name, each with `state` (`present`, `fetched`, `resumed`), `bytes` and `checksum`; `skipped`
        (files that were there), `damaged` (names of those that were there and wrong), `resumed` (files gone on with),
        `bytes` (received), `seconds`, and `next`, the commands that use the files.

    Raises:
        UsageError: an unknown dataset or file, or a mirror that is no base address.
        CaptError: a server that refuses or cannot be reached, too little disk, or a file that is not the published one.
    """
    started = time.monotonic()
    publication = _published(options.dataset)
    files = _chosen(publication.files, options.only, options.dataset)
    place = _made(options.directory)
    base = _base(options.mirror_url)
    with hold_job_lock(place / _LOCK):
        damaged = _damaged(files, place)
        wanted = [
            Transfer(file, f"{base}/{file.name}" if base else file.address, place / file.name)
            for file in files
            if file.name in damaged or not (place / file.name).exists()
        ]
        _check_disk(wanted, place)
        for transfer in wanted:
            transfer.run()
    states = {transfer.name: "resumed" if transfer.resumed else "fetched" for transfer in wanted}
    return {
        "dataset": options.dataset,
        "directory": options.directory,
        "files": {
            file.name: {
                "state": states.get(file.name, "present"),
                "bytes": (place / file.name).stat().st_size,
                "checksum": file.checksum,
            }
            for file in files
        },
        "skipped": len(files) - len(wanted),
        "damaged": damaged,
        "resumed": sum(transfer.resumed for transfer in wanted),
        "bytes": sum(transfer.received for transfer in wanted),
        "seconds": round(time.monotonic() - started, 3),
        "next": _commands(publication, place, options.directory),
    }


def print_fetched(result: dict[str, Any]) -> None:
    """Print what `fetch_dataset` returned for people."""
    printer = Printer()
    rows = [(name, file["state"], file["bytes"]) for name, file in result["files"].items()]
    printer.table(f"{result['dataset']} in {result['directory']}", ("file", "state"), ("bytes",), rows)
    if result["next"]:
        printer.line("to use them:")
        for command in result["next"]:
            printer.line(f"  {command}")


def _published(dataset: str) -> Publication:
    if dataset not in PUBLISHED:
        raise UsageError(f"nothing published is known as {dataset!r}", hint=f"use one of {', '.join(PUBLISHED)}")
    return PUBLISHED[dataset]


def _chosen(files: Sequence[PublishedFile], only: Sequence[str], dataset: str) -> list[PublishedFile]:
    names = [file.name for file in files]
    for name in only:
        if name not in names:
            raise UsageError(f"{dataset} has no file {name!r}", location="--only", hint=f"it has {', '.join(names)}")
    return [file for file in files if (file.name in only if only else not file.extra)]


def _made(directory: str) -> Path:
    place = local_path(directory)
    try:
        make_directory(place)
    except OSError as error:
        raise UsageError(f"cannot make the directory: {error.strerror}", location=directory) from error
    return place


def _base(mirror: str | None) -> str:
    """The mirror's address without a slash at its end; empty where there is none."""
    if mirror is None:
        return ""
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(sign in mirror for sign in "@?#"):
        raise UsageError(
            "a mirror is an http or https address without user, query or fragment", location=f"--mirror-url {mirror}"
        )
    return mirror.rstrip("/")


def _damaged(files: Sequence[PublishedFile], place: Path) -> list[str]:
    """Names of the files that are there and not as published."""
    damaged = []
    for file in files:
        path = place / file.name
        wrong = mismatch(file, path) if path.exists() else ""
        if wrong:
            _log.warning("%s is damaged and will be fetched again: %s", path, wrong)
            damaged.append(file.name)
    return damaged


def _check_disk(wanted: Sequence[Transfer], place: Path) -> None:
    """Say how much is to come, and refuse where the disk is too small for it."""
    if not wanted:
        return
    missing = {transfer.name: transfer.announced().bytes - transfer.arrived for transfer in wanted}
    need, free = sum(missing.values()), shutil.disk_usage(place).free
    told = ", ".join(f"{name} {_size(count)}" for name, count in missing.items())
    _log.info("to fetch: %s (%s); free in %s: %s", _size(need), told, place, _size(free))
    if need > free:
        raise CaptError(
            f"{_size(need)} are to be fetched, and {_size(free)} are free",
            location=str(place),
            hint="free some, or take fewer files with --only",
        )


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def _commands(publication: Publication, place: Path, directory: str) -> list[str]:
    """The commands of a publication whose files are all there."""
    missing = [f"{{dir}}/{file.name}" for file in publication.files if not (place / file.name).exists()]
    return [
        command.replace("{dir}", shlex.quote(directory))
        for command in publication.commands
        if not any(name in command.split() for name in missing)
    ]
