"""Drift: how far the cached features of some images lie from those of others, without decoding an image.

    rows of a table → one vector an image → mean and covariance → distances of the two

Distances are in units of what the features vary anyway, and what chance makes of so few images is taken off: 0 is no
drift. The unit of the mean distance is the root-mean-square distance of an image from the mean of all. Two images
commonly lie √2 apart in it.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.io.atomic_files import write
from features.store.tables import FeatureTable
from schemas.errors import CorruptFileError

MOST_IMAGES = 8192
MOST_DIMENSIONS = 256

_BATCH = 256
_GRID = 8  # cells a side that pixels are averaged into
_SEED = 0


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of images' vectors.

    Args:
        count: int. Images, at least 2.
        mean: float64 array [D], D at most `MOST_DIMENSIONS`.
        covariance: float64 array [D, D].
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def save(self, path: Path) -> None:
        """Write them as NumPy's `.npz`."""
        data = BytesIO()
        np.savez(data, count=self.count, mean=self.mean, covariance=self.covariance)
        write(path, data.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Those that `save` wrote; CorruptFileError where they cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                return cls(int(saved["count"]), saved["mean"], saved["covariance"])
        except (OSError, ValueError, KeyError) as error:
            raise CorruptFileError(f"the moments of features cannot be read: {error}", location=str(path)) from None


@dataclass(frozen=True)
class Drift:
    """Distances between two sets of images.

    Args:
        mean: float. Between their means, divided by the root-mean-square distance of the first images from their mean.
        covariance: float. Between their covariances (Frobenius), as a share of the first's.
    """

    mean: float
    covariance: float


def compute_moments(table: FeatureTable, keys: NDArray[np.uint8]) -> Moments | None:
    """The moments of images' features.

    Features of places are averaged over the places, and pixels into a grid of cells; of vectors longer than
    `MOST_DIMENSIONS` a seeded random projection is taken, which keeps distances (Johnson and Lindenstrauss, 1984). Of
    more than `MOST_IMAGES` images those with the smallest keys count, which are as good as drawn.

    Args:
        table: FeatureTable. The table.
        keys: uint8 array [N, 32]. Content keys; those that the table lacks are passed over.

    Returns:
        Moments, or None for fewer than 2 images.
    """
    positions = np.unique(table.lookup(keys))
    positions = positions[positions >= 0][:MOST_IMAGES]
    if len(positions) < 2:
        return None
    parts = [_vectors(table.read(positions[at : at + _BATCH])) for at in range(0, len(positions), _BATCH)]
    vectors = np.concatenate(parts)
    return Moments(len(vectors), vectors.mean(axis=0), np.atleast_2d(np.cov(vectors, rowvar=False)))


def compute_drift(old: Moments, new: Moments) -> Drift:
    """How far `new` lies from `old`; both of one table, or of two of one recipe."""
    variance = float(np.trace(old.covariance))
    if variance <= 0:
        return Drift(0.0, 0.0)
    by_chance = 1 / old.count + 1 / new.count
    step = float(np.sum((new.mean - old.mean) ** 2)) / variance
    spread = float(np.sum(old.covariance**2))
    change = float(np.sum((new.covariance - old.covariance) ** 2)) / spread
    # Sampled covariances lie so far apart in the mean where the vectors are normal.
    expected = (variance**2 / spread + 1) * by_chance
    return Drift(float(np.sqrt(max(0.0, step - by_chance))), float(np.sqrt(max(0.0, change - expected))))


def _vectors(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """One vector an image, of features [N, *shape]."""
    features = np.asarray(values, np.float64)
    if features.ndim == 4:
        features = _cells(features).reshape(len(features), -1)
    elif features.ndim == 3:
        features = features.mean(axis=1)
    width = features.shape[1]
    if width <= MOST_DIMENSIONS:
        return features
    projection = np.random.default_rng(_SEED).standard_normal((width, MOST_DIMENSIONS)) / np.sqrt(MOST_DIMENSIONS)
    return np.asarray(features @ projection, np.float64)


def _cells(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pictures [N, H, W, C] averaged into a grid of cells."""
    for axis in (1, 2):
        side = pixels.shape[axis]
        edges = np.linspace(0, side, min(_GRID, side) + 1).astype(int)
        sums = np.add.reduceat(pixels, edges[:-1], axis=axis)
        sizes = np.diff(edges).reshape([-1 if one == axis else 1 for one in range(4)])
        pixels = sums / sizes
    return pixels
