"""Reads the settings in a YAML file."""

from pathlib import Path
from typing import Any

from schemas.errors import UsageError

MAX_BYTES = 1 << 20


def read_settings(path: str | Path) -> dict[str, Any]:
    """Returns the entries of a YAML file by name; none if the file is empty.

    Raises:
        UsageError: The path is a URI, or the file cannot be read, is not a YAML mapping, is larger than `MAX_BYTES`,
            is nested too deeply, has an alias, or repeats a key.
    """
    if "://" in str(path):
        raise UsageError("not a local path", location=str(path), hint="Choose a local path.")
    # Importing YAML takes time, so commands without a configuration file do not import it.
    import yaml

    from schemas.strict_yaml import load_yaml

    try:
        entries = load_yaml(_read_text(Path(path)))
    except OSError as error:
        message = f"cannot read the file: {error.strerror or type(error).__name__}"
        raise UsageError(message, location=str(path), hint="Check the path and its permissions.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"not YAML: {error}", location=str(path)) from None
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        raise UsageError("expected `key: value` lines", location=str(path))
    return {str(key): value for key, value in entries.items()}


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"the file has more than {MAX_BYTES:,} bytes", location=str(path), hint="Choose a YAML file.")
    return data.decode()
