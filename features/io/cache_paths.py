"""Names the local files that belong to objects.

    $CAPT_CACHE_DIR/local/s3/<bucket>/<key>     job databases, locks, the hash cache, temporary files
    $CAPT_CACHE_DIR/files/s3/<bucket>/<key>     copies of objects (the local cache)
    $CAPT_CACHE_DIR/hashes/s3/<bucket>/<key>    SHA-256 of objects, with their tags
    $CAPT_CACHE_DIR/small/s3/<bucket>/<key>     copies of log entries and manifests, with their tags

`CAPT_CACHE_DIR` defaults to `~/.cache/capt`. A service at another endpoint has another name, such as
`s3-1f2e3d4c`.
"""

import hashlib
import os
import uuid
from pathlib import Path
from typing import Literal

from features.io.temporary_names import TEMP_PREFIX
from features.io.uris import resolve_endpoint


def cache_root() -> Path:
    """Returns the directory of all local files that belong to objects."""
    directory = os.environ.get("CAPT_CACHE_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(directory).absolute() if directory else cache / "capt"


def cache_path(uri: str, part: Literal["local", "files", "hashes", "small"]) -> Path:
    """Returns the local path, in one part of the directory, that belongs to a URI."""
    scheme, _, rest = uri.partition("://")
    endpoint = resolve_endpoint(scheme)
    service = f"{scheme}-{hashlib.sha256(endpoint.encode()).hexdigest()[:8]}" if endpoint else scheme
    return cache_root() / part / service / rest


def replace_file(path: Path, data: bytes) -> None:
    """Writes a local file atomically, but not durably, and creates its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    temporary.replace(path)
