"""Settings: what a YAML file of `key: value` lines holds."""

from pathlib import Path
from typing import Any

from schemas.errors import UsageError


def read_settings(path: str | Path) -> dict[str, Any]:
    """The entries of a YAML file, by name; none where the file is empty.

    Raises:
        UsageError: it is an address, cannot be read, is no YAML, or holds something else than entries.
    """
    if "://" in str(path):
        what = "an address, and a path on this machine is needed"
        raise UsageError(what, where=str(path), mend="Name a local path.")
    # Not every command reads settings.
    import yaml

    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("cannot read the file", where=str(path), mend=error.strerror or "") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"not YAML: {error}", where=str(path)) from None
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        raise UsageError("expected `key: value` lines", where=str(path))
    return {str(key): value for key, value in entries.items()}
