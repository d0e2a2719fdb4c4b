import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.losses import CrossEntropy, MaskedAccuracy, MaskedCrossEntropy, token_losses


@pytest.fixture
def batch():
    rng = np.random.default_rng(3)
    targets = np.array([[5, 3, 0, 0, 0], [4, 6, 7, 5, 3]], np.int32)
    return targets, rng.normal(size=(2, 5, 8)).astype(np.float32)


def by_hand(targets, logits):
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return [-shifted[i, t, targets[i, t]] for i, t in zip(*np.nonzero(targets), strict=True)]


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_cross_entropy_and_gradient_equal_those_of_keras(scale):
    rng = np.random.default_rng(5)
    logits = tf.constant(scale * rng.normal(size=(3, 4, 50)) - 2 * scale, tf.float32)
    targets = rng.integers(0, 50, (3, 4)).astype(np.int32)
    found = []
    for losses in (
        lambda: token_losses(targets, logits)[0],
        lambda: keras.ops.sparse_categorical_crossentropy(targets, logits, from_logits=True),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses()
        found.append((loss.numpy(), tape.gradient(loss, logits).numpy()))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_accuracy_counts_targets_with_the_largest_logit():
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(4, 30, 6)).astype(np.float32)
    targets = rng.integers(1, 6, (4, 30)).astype(np.int32)
    metric = MaskedAccuracy()
    metric.update_state(targets, logits)
    assert float(metric.result()) == pytest.approx(np.mean(logits.argmax(-1) == targets))


def test_the_loss_is_the_mean_over_real_tokens(batch):
    targets, logits = batch
    assert float(MaskedCrossEntropy()(targets, logits)) == pytest.approx(np.mean(by_hand(targets, logits)), rel=1e-6)


def test_logits_at_padding_do_not_count(batch):
    targets, logits = batch
    other = np.where(targets[..., None] == 0, logits + 100 * np.arange(8), logits).astype(np.float32)
    assert float(MaskedCrossEntropy()(targets, other)) == float(MaskedCrossEntropy()(targets, logits))
    for metric in (CrossEntropy(), MaskedAccuracy()):
        metric.update_state(targets, logits)
        value = float(metric.result())
        metric.reset_state()
        metric.update_state(targets, other)
        assert float(metric.result()) == value


def test_more_padding_changes_nothing(batch):
    targets, logits = batch
    wider = np.pad(targets, [(0, 2), (0, 4)])
    more = np.pad(logits, [(0, 2), (0, 4), (0, 0)])
    assert float(MaskedCrossEntropy()(wider, more)) == pytest.approx(float(MaskedCrossEntropy()(targets, logits)))


def test_no_gradient_reaches_the_logits_of_padding(batch):
    targets, logits = batch
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = MaskedCrossEntropy()(targets, logits)
    gradient = tape.gradient(loss, logits).numpy()
    assert not gradient[targets == 0].any()
    assert gradient[targets != 0].any(axis=-1).all()


def test_a_batch_of_padding_alone_has_loss_zero():
    assert float(MaskedCrossEntropy()(np.zeros((2, 3), np.int32), np.ones((2, 3, 8), np.float32))) == 0


def test_metrics_weight_batches_by_their_tokens(batch):
    targets, logits = batch
    metric = CrossEntropy()
    metric.update_state(targets[:1], logits[:1])
    metric.update_state(targets[1:], logits[1:])
    assert float(metric.result()) == pytest.approx(np.mean(by_hand(targets, logits)), rel=1e-6)


def test_accuracy_counts_real_tokens_only(batch):
    targets, _ = batch
    logits = np.eye(8, dtype=np.float32)[targets]
    logits[1, 0] = np.eye(8)[7]
    metric = MaskedAccuracy()
    metric.update_state(targets, logits)
    assert float(metric.result()) == pytest.approx(6 / 7)


@pytest.mark.parametrize("kind", [MaskedCrossEntropy, CrossEntropy, MaskedAccuracy])
def test_losses_and_metrics_survive_their_config(kind):
    made = kind.from_config(kind(name="mine").get_config())
    assert made.name == "mine"
    assert keras.saving.get_registered_name(kind) == f"capt>{kind.__name__}"


def test_label_smoothing_spreads_the_target_over_allowed_tokens(batch):
    targets, logits = batch
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.mean(
        [
            0.9 * -shifted[i, t, targets[i, t]] + 0.1 * -shifted[i, t, 3:].mean()
            for i, t in zip(*np.nonzero(targets), strict=True)
        ]
    )
    assert float(MaskedCrossEntropy(label_smoothing=0.1)(targets, logits)) == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_excludes_tokens_that_are_never_generated(batch):
    targets, logits = batch
    banned = logits.copy()
    banned[..., :3] = -1e9
    assert float(MaskedCrossEntropy(label_smoothing=0.1)(targets, banned)) < 10
