import numpy as np

from trainer.models.captioner import FeatureNormalization


def fit_normalization(features):
    layer = FeatureNormalization()
    layer.build(features.shape)
    layer.fit(features)
    return layer


def test_features_have_mean_0_and_standard_deviation_1():
    features = np.random.default_rng(0).normal(3, 5, (50, 4, 6)).astype(np.float32)
    scaled = np.array(fit_normalization(features)(features))
    np.testing.assert_allclose(scaled.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 1)), 1, atol=1e-5)


def test_constant_channels_keep_their_scale():
    assert np.array_equal(fit_normalization(np.zeros((2, 9, 20), np.float16)).factor, np.ones(20))


def test_large_half_floats_are_measured_without_overflow():
    features = np.zeros((2, 9, 20), np.float16)
    features[0] = 6e4
    layer = fit_normalization(features)
    np.testing.assert_allclose(layer.mean, 3e4, rtol=1e-3)
    np.testing.assert_allclose(layer.factor, 1 / 3e4, rtol=1e-3)


def test_nearly_constant_channels_are_not_amplified():
    features = np.random.default_rng(0).normal(0, 1, (1000, 6)).astype(np.float32)
    features[:, 2], features[:, 3] = 0, 5
    features[7, 2] = 1e-4
    factor = np.array(fit_normalization(features).factor)
    usual = np.sqrt(4 / 6)
    np.testing.assert_allclose(factor[2:4], [10 / usual, 1 / usual], rtol=0.05)
    np.testing.assert_allclose(factor[[0, 1, 4, 5]], 1, rtol=0.1)


def test_rare_activations_are_not_amplified():
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (10_000, 2)).astype(np.float32)
    features[:, 1] = random.random(10_000) < 0.01
    np.testing.assert_allclose(fit_normalization(features).factor, 1, rtol=0.05)
