"""`capt inspect` offers arrays that `--from-arrays` imports, and no others."""

from pathlib import Path

import numpy as np
import pytest

import capt
from schemas.errors import UsageError
from tests.pipelines.inspection.printed_commands import inspect

FEATURES = np.zeros((3, 8), np.float32)


def save(path: Path, array: np.ndarray) -> Path:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)
    return path


def test_arrays_are_one_file_per_image_in_a_directory_or_one_file_of_all_images(tmp_path: Path) -> None:
    directory = save(tmp_path / "features/a.jpg.npy", FEATURES).parent
    save(directory / "b.jpg.npy", FEATURES)
    whole = save(tmp_path / "features.npy", FEATURES)
    np.savez(tmp_path / "features.npz", features=FEATURES)
    for path, placeholders in ((directory, 2), (whole, 3), (tmp_path / "features.npz", 3)):
        (found,) = inspect(path)
        assert found["dataset_type"] == "arrays"
        assert str(path) in found["commands"][0]
        assert len(found["placeholders"]) == placeholders
    np.savez(directory / "c.npz", features=FEATURES)
    assert [one["path"] for one in capt.inspect(paths=[str(directory)])["unused"]] == [str(directory / "c.npz")]
    with pytest.raises(UsageError) as caught:
        inspect(whole, directory)
    assert caught.value.location == str(directory)


def test_arrays_that_cannot_be_imported_are_wrong_usage(tmp_path: Path) -> None:
    """Garbage, Python objects, integers, one row without an axis of images, truncated values, and several arrays."""
    for name in ("garbage.npy", "garbage.npz"):
        (tmp_path / name).write_bytes(b"garbage" * 10)
    save(tmp_path / "objects/a.npy", np.array([{}], object))
    save(tmp_path / "integers.npy", np.zeros((3, 8), np.int64))
    save(tmp_path / "row.npy", FEATURES[0])
    data = save(tmp_path / "truncated.npy", FEATURES).read_bytes()
    (tmp_path / "truncated.npy").write_bytes(data[:-1])
    np.savez(tmp_path / "several.npz", a=FEATURES, b=FEATURES)
    np.savez(tmp_path / "integers.npz", np.zeros((3, 8), np.int64))
    for path in tmp_path.iterdir():
        with pytest.raises(UsageError):
            inspect(path)
