"""The drift is near 0 for more images of the same kind, and grows with a shift or another spread."""

from pathlib import Path

import numpy as np
import pytest

from features.store import open_store
from schemas.errors import CorruptFileError
from tests.features.store.stores import add_features, feature_config, keys_of, new_store
from workflows.retraining.drift import MAX_DIMENSIONS, Moments, compute_drift, compute_moments


def moments(count: int, seed: int, *, shift: float = 0.0, scale: float = 1.0, dimensions: int = 64) -> Moments:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)) * scale + shift
    return Moments(count, vectors.mean(axis=0), np.cov(vectors, rowvar=False))


@pytest.mark.parametrize("count", [20, 200, 2000])
def test_images_of_the_same_kind_do_not_drift_at_any_number(count: int) -> None:
    found = [compute_drift(moments(2000, 0), moments(count, seed)) for seed in range(1, 9)]
    assert np.mean([one.mean for one in found]) < 0.1
    assert np.mean([one.covariance for one in found]) < 0.6


def test_the_mean_drifts_by_a_shift_in_units_of_the_standard_deviation() -> None:
    found = compute_drift(moments(2000, 0), moments(200, 1, shift=1.0))
    assert found.mean == pytest.approx(1.0, abs=0.05)


def test_an_image_is_1_to_mean_and_root_2_from_another_image() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((20_000, 16)) * generator.uniform(0.5, 2, 16)
    to_mean = np.sqrt(np.mean(np.sum((vectors - vectors.mean(axis=0)) ** 2, axis=1)))
    between_two = np.sqrt(np.mean(np.sum((vectors[:10_000] - vectors[10_000:]) ** 2, axis=1)))

    def drift_of(distance: float) -> float:
        shift = np.zeros(16)
        shift[3] = distance
        both = [Moments(len(v), v.mean(axis=0), np.cov(v, rowvar=False)) for v in (vectors, vectors + shift)]
        return compute_drift(*both).mean

    assert drift_of(to_mean) == pytest.approx(1, abs=0.01)
    assert drift_of(between_two) == pytest.approx(np.sqrt(2), abs=0.02)


def test_another_spread_changes_the_covariance_only() -> None:
    found = compute_drift(moments(2000, 0), moments(2000, 1, scale=2.0))
    assert found.mean < 0.1
    assert found.covariance == pytest.approx(3.0, rel=0.1)


def test_moments_average_spatial_features_over_their_locations(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    table_config = feature_config()
    add_features(store, table_config, range(50))
    table = open_store(tmp_path / "store").feature_tables()[0]
    found = compute_moments(table, keys_of(range(40, 70)))
    assert found is not None
    rows = table.get_many(keys_of(range(40, 50))).astype(np.float64).mean(axis=1)
    assert found.count == 10
    np.testing.assert_allclose(found.mean, rows.mean(axis=0))
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False))
    assert compute_moments(table, keys_of([49, 60])) is None


def test_pixels_are_averaged_into_cells_and_long_vectors_projected() -> None:
    class Table:
        def __init__(self, values: np.ndarray) -> None:
            self.values = values

        def lookup(self, keys: np.ndarray) -> np.ndarray:
            return np.arange(len(keys))

        def read(self, positions: np.ndarray) -> np.ndarray:
            return self.values[positions]

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 50, 3), np.uint8)
    small = compute_moments(Table(pixels), np.zeros((20, 32), np.uint8))
    assert small is not None
    assert small.mean.shape == (8 * 8 * 3,)
    assert small.mean.mean() == pytest.approx(127.5, abs=10)
    long = compute_moments(Table(np.random.default_rng(0).standard_normal((20, 2048))), np.zeros((20, 32), np.uint8))
    assert long is not None
    assert long.mean.shape == (MAX_DIMENSIONS,)


def test_saved_moments_are_loaded_and_corrupt_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "moments.npz"
    moments(10, 0, dimensions=4).save(path)
    found = Moments.load(path)
    np.testing.assert_array_equal(found.mean, moments(10, 0, dimensions=4).mean)
    path.write_bytes(b"no archive")
    with pytest.raises(CorruptFileError, match=r"moments\.npz"):
        Moments.load(path)
