"""Costs: how long a run was trained for, and how much of the disk it takes."""

from pathlib import Path

from workflows.experiments.curves import read_epochs


def training_seconds(root: Path) -> float:
    """Seconds of all epochs of a run, validation included, however often it was stopped between."""
    seconds: float = sum(row["seconds"] + (row["val_seconds"] or 0) for row in read_epochs(root))
    return round(seconds, 3)


def measure_bytes(root: Path) -> int:
    """Bytes of the files below a directory; those that lie elsewhere too, such as a network of the store, left out."""
    files = [path.stat() for path in root.rglob("*") if path.is_file()]
    return sum(file.st_size for file in files if file.st_nlink == 1)
