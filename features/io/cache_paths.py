"""The local side of stores at addresses: where this machine keeps what it works with, and what it has read.

    $CAPT_CACHE_DIR/local/s3/<bucket>/<key>     ledgers, locks, the stat cache, files being written
    $CAPT_CACHE_DIR/mirror/s3/<bucket>/<key>    files of stores, as they lie there
    $CAPT_CACHE_DIR/known/s3/<bucket>/<key>     SHA-256 of objects by their tags
    $CAPT_CACHE_DIR/small/s3/<bucket>/<key>     logs and manifests by their tags

`CAPT_CACHE_DIR` is `~/.cache/capt` where the environment does not say. A service at an endpoint of its own has a
name of
its own, such as `s3-1f2e3d4c`.
"""

import hashlib
import os
from pathlib import Path
from typing import Literal

from features.io.object_stores import resolve_endpoint

Part = Literal["local", "mirror", "known", "small"]


def cache_root() -> Path:
    """The directory of this machine's local sides."""
    named = os.environ.get("CAPT_CACHE_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named).absolute() if named else cache / "capt"


def cache_path(address: str, part: Part) -> Path:
    """Where one part of the local side has what belongs to an address."""
    scheme, _, rest = address.partition("://")
    endpoint = resolve_endpoint(scheme)
    service = f"{scheme}-{hashlib.sha256(endpoint.encode()).hexdigest()[:8]}" if endpoint else scheme
    return cache_root() / part / service / rest
