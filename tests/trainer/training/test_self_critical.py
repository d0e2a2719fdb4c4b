import keras
import numpy as np
import pytest

from schemas.table_config import END, PAD, START, UNKNOWN
from trainer.config import parse_options
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.models.losses import WeightedLogLikelihood
from trainer.models.model_specs import MODELS
from trainer.training.self_critical import CaptionSampler, compile_train_step

VOCABULARY, LOCATIONS, CHANNELS, LIMIT, SAMPLES = 11, 4, 6, 4, 3
EPOCH, STEP = 2, 5


def reward_of_sevens(images, tokens):
    """The fraction of sevens among the tokens, plus the number of the image."""
    return (tokens == 7).sum(axis=-1) / 4 + images[:, None]


def make_model(name, sizes):
    spec = MODELS[name]
    keras.utils.set_random_seed(3)
    features = np.random.default_rng(0).normal(size=(4, *(LOCATIONS,) * spec.spatial, CHANNELS)).astype(np.float32)
    model = spec.build(spec.config(**sizes), VOCABULARY, features.shape[1:])
    return model, features


def make_sampler(model, pad_tokens_to=1, **settings):
    options = {"objective": "cider_d", "samples_per_image": SAMPLES, "seed": 9, **settings}
    training, _ = parse_options(type(model.config), options)
    return CaptionSampler(model, reward_of_sevens, training, LIMIT, pad_tokens_to)


# The other models have the call and step of `merge`.
FAST = {"soft_attention", "hard_attention", "transformer", "merge"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in MODELS]
)
def test_the_loss_is_the_log_probability_with_which_the_captions_were_sampled(name, tiny_sizes):
    model, features = make_model(
        name, {**tiny_sizes[name], "max_length": LIMIT} if name == "transformer" else tiny_sizes[name]
    )
    batch = make_sampler(model, policy_temperature=1)(features, np.arange(4), EPOCH, STEP)
    config = GenerationConfig(max_new_tokens=LIMIT, temperature=1.0, num_return_sequences=SAMPLES)
    uniform = np.random.default_rng([9, EPOCH, STEP]).random((4 * SAMPLES, LIMIT), np.float32)
    tokens, scores, _ = make_decoder(model, config).compiled_decode(features, uniform)
    assert {0, 1, 2}.isdisjoint(batch.targets[batch.targets != PAD])
    ended = (np.reshape(tokens, (-1, LIMIT)) == PAD).any(axis=1)
    assert ended.tolist() == (batch.targets == END).any(axis=1).tolist()
    rewards = reward_of_sevens(np.arange(4), np.array(tokens))
    others = [[np.delete(row, k).mean() for k in range(SAMPLES)] for row in rewards]
    expected = -((rewards - others) * np.array(scores)).sum() / np.count_nonzero(batch.targets)
    model.compile(keras.optimizers.SGD(0.1), WeightedLogLikelihood())
    compile_train_step(model, batch)
    before = [np.array(weight) for weight in model.trainable_weights]
    logs = model.train_on_batch(batch.inputs, batch.targets, batch.weights, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, abs=1e-5)
    assert any(np.abs(new - old).max() > 0 for new, old in zip(model.trainable_weights, before, strict=True))


@pytest.fixture(scope="module")
def merge(tiny_sizes):
    return make_model("merge", tiny_sizes["merge"])


def test_the_inputs_are_the_targets_before_each_target(merge):
    model, features = merge
    batch = make_sampler(model)(features, np.arange(4), EPOCH, STEP)
    inputs = batch.inputs["tokens"]
    assert (inputs[:, 0] == START).all()
    shifted = np.where(batch.targets[:, :-1] == END, PAD, batch.targets[:, :-1])
    np.testing.assert_array_equal(inputs[:, 1:], shifted)
    assert batch.inputs["image"].tolist() == [image for image in range(4) for _ in range(SAMPLES)]


def test_the_policy_temperature_divides_the_logits_of_samples_and_loss(merge):
    model, features = merge
    temperature = 0.3
    batch = make_sampler(model, policy_temperature=temperature)(features, np.arange(4), EPOCH, STEP)
    config = GenerationConfig(max_new_tokens=LIMIT, temperature=temperature, num_return_sequences=SAMPLES)
    uniform = np.random.default_rng([9, EPOCH, STEP]).random((4 * SAMPLES, LIMIT), np.float32)
    tokens = np.reshape(make_decoder(model, config).compiled_decode(features, uniform)[0], (-1, LIMIT))
    np.testing.assert_array_equal(
        tokens[:, : batch.targets.shape[1]], np.where(batch.targets == END, PAD, batch.targets)
    )
    logits = np.array(model(batch.inputs), np.float64) / temperature
    logits[..., [PAD, UNKNOWN, START]] = -np.inf
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_probabilities, batch.targets[..., None], axis=-1)[..., 0]
    expected = -(batch.weights * np.where(batch.targets != PAD, chosen, 0).sum(axis=1)).sum()
    loss = WeightedLogLikelihood(temperature)(batch.targets, model(batch.inputs), batch.weights)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_samples_are_a_function_of_seed_epoch_and_step(merge):
    model, features = merge
    sampler = make_sampler(model)
    batch, again = (sampler(features, np.arange(4), EPOCH, STEP) for _ in range(2))
    np.testing.assert_array_equal(batch.targets, again.targets)
    np.testing.assert_array_equal(batch.weights, again.weights)
    for epoch, step in ((EPOCH, STEP + 1), (EPOCH + 1, STEP)):
        other = sampler(features, np.arange(4), epoch, step)
        assert other.targets.shape != batch.targets.shape or (other.targets != batch.targets).any()


def test_advantages_of_an_image_sum_to_0_with_the_mean_baseline(merge):
    model, features = merge
    batch = make_sampler(model)(features, np.arange(4), EPOCH, STEP)
    np.testing.assert_allclose(batch.weights.reshape(4, SAMPLES).sum(axis=1), 0, atol=1e-7)
    assert np.abs(batch.weights).max() > 0
    assert batch.baseline == pytest.approx(batch.reward)


def test_the_greedy_baseline_is_the_reward_of_the_greedy_caption(merge):
    model, features = merge
    batch = make_sampler(model, reward_baseline="greedy", samples_per_image=1)(features, np.arange(4), EPOCH, STEP)
    greedy = make_decoder(model, GenerationConfig(max_new_tokens=LIMIT))(features).tokens
    assert batch.baseline == pytest.approx(reward_of_sevens(np.arange(4), greedy).mean())
    sampled = reward_of_sevens(np.arange(4), batch.targets[:, None])
    expected = (sampled - reward_of_sevens(np.arange(4), greedy))[:, 0] / np.count_nonzero(batch.targets)
    np.testing.assert_allclose(batch.weights, expected, atol=1e-6)


def test_captions_are_padded_to_few_lengths_for_backends_that_compile_each_length(merge):
    model, features = merge
    batch = make_sampler(model, pad_tokens_to=4)(features, np.arange(4), EPOCH, STEP)
    assert batch.targets.shape == batch.inputs["tokens"].shape == (4 * SAMPLES, 4)


def test_the_step_is_compiled_once_for_captions_of_any_length(merge):
    model, features = merge
    batch = make_sampler(model)(features, np.arange(4), EPOCH, STEP)
    model.compile(keras.optimizers.SGD(0.1), WeightedLogLikelihood())
    traced = []
    step = model.train_step
    model.train_step = lambda data: traced.append(1) or step(data)
    compile_train_step(model, batch)
    for length in (2, 4, 3):
        inputs = {**batch.inputs, "tokens": batch.inputs["tokens"][:, :length]}
        model.train_on_batch(inputs, batch.targets[:, :length], batch.weights)
    assert traced == [1]


@pytest.mark.parametrize("name", ["soft_attention", "hard_attention"])
def test_without_targets_attention_models_add_no_loss(name, tiny_sizes):
    model, features = make_model(name, {**tiny_sizes[name], "doubly_stochastic": 1.0})
    tokens = np.full((4, 3), 5, np.int32)
    inputs = {"features": features, "tokens": tokens}
    in_training = np.array(model(inputs, training=True))
    assert model.losses == []
    np.testing.assert_allclose(in_training, model(inputs), atol=1e-6)
    model({**inputs, "targets": tokens}, training=True)
    assert model.losses
