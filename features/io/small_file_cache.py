"""Shelves: the small files of one directory in a bucket, of which only those come that were not here before.

One listing tells the tags of all. `$CAPT_CACHE_DIR/small/s3/<bucket>/<key>` keeps each with the tag that it came
under, so
that a log of a thousand commits costs a request, and its new entries one each.
"""

import contextlib
import uuid
from concurrent.futures import ThreadPoolExecutor

from features.io.bucket import Listed
from features.io.cache_paths import cache_path
from features.io.locations import ObjectPath

_AT_ONCE = 8


def read_small_files(directory: ObjectPath) -> dict[str, bytes]:
    """The bytes of every object directly in a directory, by name."""
    found = [(path, listed) for path, listed in directory.listing() if path.parent == directory]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shelf") as pool:
        read = pool.map(lambda one: _read(*one), found)
        return {path.name: data for (path, _), data in zip(found, read, strict=True) if data is not None}


def _read(path: ObjectPath, listed: Listed) -> bytes | None:
    """An object's bytes as listed; None where it has been deleted since."""
    kept, mark = cache_path(str(path), "small"), f"{listed.tag} {listed.modified_ns}\n".encode()
    with contextlib.suppress(OSError):
        tagged = kept.read_bytes()
        if tagged.startswith(mark):
            return tagged[len(mark) :]
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) == listed.size:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".aside-{uuid.uuid4().hex}")
        temporary.write_bytes(mark + data)
        temporary.replace(kept)
    return data
