"""Names temporary files and directories, so that a killed writer's are recognized."""

from pathlib import Path

TEMP_PREFIX = ".aside-"


def is_temporary(path: Path) -> bool:
    """Returns whether a file or directory is a temporary one, of a running or a killed writer."""
    return path.name.startswith(TEMP_PREFIX)
