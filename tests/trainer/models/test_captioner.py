import numpy as np

from trainer.models.captioner import FeatureNormalization


def scale_of(features):
    layer = FeatureNormalization()
    layer.build(features.shape)
    layer.fit(features)
    return layer


def test_features_come_out_with_no_mean_and_a_deviation_of_one():
    features = np.random.default_rng(0).normal(3, 5, (50, 4, 6)).astype(np.float32)
    scaled = np.array(scale_of(features)(features))
    np.testing.assert_allclose(scaled.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 1)), 1, atol=1e-5)


def test_channels_that_never_change_keep_their_size():
    assert np.array_equal(scale_of(np.zeros((2, 9, 20), np.float16)).factor, np.ones(20))


def test_large_half_floats_are_measured_without_overflow():
    features = np.zeros((2, 9, 20), np.float16)
    features[0] = 6e4
    layer = scale_of(features)
    np.testing.assert_allclose(layer.mean, 3e4, rtol=1e-3)
    np.testing.assert_allclose(layer.factor, 1 / 3e4, rtol=1e-3)


def test_a_channel_that_few_images_have_is_not_blown_up_in_them():
    features = np.random.default_rng(0).normal(0, 1, (1000, 6)).astype(np.float32)
    features[:, 2], features[:, 3] = 0, 5
    features[7, 2] = 1e-4
    factor = np.array(scale_of(features).factor)
    usual = np.sqrt(4 / 6)
    np.testing.assert_allclose(factor[2:4], [10 / usual, 1 / usual], rtol=0.05)
    np.testing.assert_allclose(factor[[0, 1, 4, 5]], 1, rtol=0.1)


def test_what_is_seldom_there_is_no_larger_for_that():
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (10_000, 2)).astype(np.float32)
    features[:, 1] = random.random(10_000) < 0.01
    np.testing.assert_allclose(scale_of(features).factor, 1, rtol=0.05)
