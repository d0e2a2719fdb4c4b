"""Measures how far the stored features of new images have drifted. No image is decoded.

    rows of a feature table → one vector per image → mean and covariance → two distances

The distance of the means is in units of the root-mean-square distance between an image and the mean of all images.
Two unrelated images are about √2 apart. The distance of the covariances is a fraction of the old covariance. Both
subtract the value that sampling alone produces: 0 means no drift.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.io.atomic_files import write
from features.store.feature_table import FeatureTable
from schemas.errors import CorruptFileError

MAX_IMAGES = 8192
MAX_DIMENSIONS = 256

_BATCH = 256
_GRID = 8  # cells per side that pixels are averaged into
_SEED = 0


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D] of at least 2 image vectors, float64; D is at most `MAX_DIMENSIONS`."""

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def save(self, path: Path) -> None:
        """Writes a NumPy `.npz` file."""
        data = BytesIO()
        np.savez(data, count=self.count, mean=self.mean, covariance=self.covariance)
        write(path, data.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Reads the file that `save` wrote. Raises CorruptFileError if it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                return cls(int(saved["count"]), saved["mean"], saved["covariance"])
        except (OSError, ValueError, KeyError) as error:
            raise CorruptFileError(f"cannot read the feature moments: {error}", location=str(path)) from None


@dataclass(frozen=True)
class Drift:
    """Distances between two sets of images.

    Args:
        mean: Distance of the means, divided by the old images' root-mean-square distance from their mean.
        covariance: Frobenius distance of the covariances, divided by the Frobenius norm of the old one.
    """

    mean: float
    covariance: float


def compute_moments(table: FeatureTable, keys: NDArray[np.uint8]) -> Moments | None:
    """Computes the moments of image features; None for fewer than two images.

    Spatial features are averaged over their locations, pixels into a grid of cells. Vectors longer than
    `MAX_DIMENSIONS` are reduced by a seeded random projection, which keeps distances (Johnson and Lindenstrauss, 1984).
    Of more than `MAX_IMAGES` images, those with the smallest keys are used: keys are hashes, so the sample is random.

    Args:
        table: Their table.
        keys: uint8 array [N, 32] of content hashes. Keys that the table lacks are ignored.
    """
    positions = np.unique(table.lookup(keys))
    positions = positions[positions >= 0][:MAX_IMAGES]
    if len(positions) < 2:
        return None
    batches = [_to_vectors(table.read(positions[at : at + _BATCH])) for at in range(0, len(positions), _BATCH)]
    vectors = np.concatenate(batches)
    return Moments(len(vectors), vectors.mean(axis=0), np.atleast_2d(np.cov(vectors, rowvar=False)))


def compute_drift(old: Moments, new: Moments) -> Drift:
    """Computes how far `new` has drifted from `old`. Both must be from tables with the same config."""
    variance = float(np.trace(old.covariance))
    if variance <= 0:
        return Drift(0.0, 0.0)
    sampling = 1 / old.count + 1 / new.count
    mean_shift = float(np.sum((new.mean - old.mean) ** 2)) / variance
    norm = float(np.sum(old.covariance**2))
    change = float(np.sum((new.covariance - old.covariance) ** 2)) / norm
    # Expected distance of two sample covariances of the same normal distribution.
    expected = (variance**2 / norm + 1) * sampling
    return Drift(float(np.sqrt(max(0.0, mean_shift - sampling))), float(np.sqrt(max(0.0, change - expected))))


def _to_vectors(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Returns one vector per image from features [N, *shape]."""
    features = np.asarray(values, np.float64)
    if features.ndim == 4:
        features = _average_cells(features).reshape(len(features), -1)
    elif features.ndim == 3:
        features = features.mean(axis=1)
    width = features.shape[1]
    if width <= MAX_DIMENSIONS:
        return features
    projection = np.random.default_rng(_SEED).standard_normal((width, MAX_DIMENSIONS)) / np.sqrt(MAX_DIMENSIONS)
    return np.asarray(features @ projection, np.float64)


def _average_cells(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages images [N, H, W, C] into a grid of cells."""
    for axis in (1, 2):
        side = pixels.shape[axis]
        edges = np.linspace(0, side, min(_GRID, side) + 1).astype(int)
        sums = np.add.reduceat(pixels, edges[:-1], axis=axis)
        sizes = np.diff(edges).reshape([-1 if dimension == axis else 1 for dimension in range(4)])
        pixels = sums / sizes
    return pixels
