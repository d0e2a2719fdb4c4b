import keras
import numpy as np
import pytest

import capt
from schemas.errors import UsageError
from schemas.table_config import END, PAD, START, UNKNOWN
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.models.configs import TransformerConfig
from trainer.models.losses import NEVER_GENERATED, CrossEntropy, MaskedAccuracy, MaskedCrossEntropy
from trainer.models.model_specs import MODELS, model_spec
from trainer.models.transformer import CachedMultiHeadAttention, DecoderLayer, Transformer

VOCABULARY, LOCATIONS, CHANNELS = 23, 9, 20


@pytest.fixture
def model(tiny_sizes):
    keras.utils.set_random_seed(5)
    model = Transformer(VOCABULARY, TransformerConfig(**{**tiny_sizes["transformer"], "num_layers": 2}))
    model.build({"features": (None, LOCATIONS, CHANNELS), "tokens": (None, None)})
    # As after training: logits that depend on what is read.
    model.logits_layer.kernel.assign(300 * model.logits_layer.kernel)
    return model


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    tokens = np.insert(rng.integers(4, VOCABULARY, (4, 6)), 0, START, axis=1).astype(np.int32)
    return {"features": rng.normal(size=(4, LOCATIONS, CHANNELS)).astype(np.float32), "tokens": tokens}


def attention_by_hand(layer, queries, values, seen):
    """Scaled dot products, head by head, in NumPy."""
    (wq, bq), (wk,), (wv, bv), (wo, bo) = (
        part.get_weights() for part in (layer.query_layer, layer.key_layer, layer.value_layer, layer.output_layer)
    )
    size, contexts, attentions = layer.units // layer.num_heads, [], []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = (queries @ wq + bq)[..., part] @ (values @ wk)[..., part].swapaxes(1, 2) / np.sqrt(size)
        weights = np.exp(np.where(seen, scores, -np.inf))
        attentions.append(weights / weights.sum(-1, keepdims=True))
        contexts.append(attentions[-1] @ (values @ wv + bv)[..., part])
    return np.concatenate(contexts, -1) @ wo + bo, np.stack(attentions, 1)


def test_attention_is_the_published_one():
    rng = np.random.default_rng(1)
    queries, values = rng.normal(size=(2, 3, 8)).astype("float32"), rng.normal(size=(2, 5, 6)).astype("float32")
    layer = CachedMultiHeadAttention(8, num_heads=2)
    layer.build((None, None, 8), (None, None, 6))
    layer.value_layer.bias.assign(rng.normal(size=8))
    seen = np.tri(3, 5, 1, dtype=bool)
    output, weights = layer(queries, layer.compute_keys_values(values), seen)
    expected, attentions = attention_by_hand(layer, queries, values, seen)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    np.testing.assert_allclose(weights, attentions, atol=1e-5)


def test_no_word_attends_to_later_words(model, inputs):
    before = np.array(model(inputs))
    for place in range(1, inputs["tokens"].shape[1]):
        changed = {**inputs, "tokens": inputs["tokens"].copy()}
        changed["tokens"][:, place:] = 4 + (changed["tokens"][:, place:] - 3) % (VOCABULARY - 4)
        np.testing.assert_allclose(np.array(model(changed))[:, :place], before[:, :place], atol=1e-5)


def test_the_order_of_words_matters(model, inputs):
    swapped = {**inputs, "tokens": inputs["tokens"].copy()}
    swapped["tokens"][:, [1, 2]] = swapped["tokens"][:, [2, 1]]
    assert np.abs(np.array(model(swapped))[:, -1] - np.array(model(inputs))[:, -1]).max() > 1e-3


def test_the_cache_gives_the_logits_of_the_whole_caption(model, inputs):
    rng = np.random.default_rng(2)
    tokens = rng.integers(4, VOCABULARY, (4, model.config.max_length + 1)).astype(np.int32)
    whole = np.array(model({**inputs, "tokens": tokens}))
    state = model.init_state(inputs["features"])
    for t in range(tokens.shape[1]):
        logits, state, weights = model.step(tokens[:, t], state)
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-4)
        np.testing.assert_allclose(np.sum(weights, -1), np.ones(4), atol=1e-5)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
def test_the_attention_is_the_mean_over_layers_and_heads(model, inputs):
    state = model.init_state(inputs["features"])
    _, _, attention = model.step(inputs["tokens"][:, 0], state)
    words, attentions = model.embedding_layer(inputs["tokens"][:, :1]) + model.position_layer(np.array([0])), []
    for i, layer in enumerate(model.decoder_layers):
        image = (state[f"image_keys_{i}"], state[f"image_values_{i}"])
        words, weights = layer(words, layer.self_attention.compute_keys_values(words), image, np.ones((1, 1), bool))
        attentions.append(np.array(weights)[:, :, 0])
    np.testing.assert_allclose(attention, np.concatenate(attentions, axis=1).mean(axis=1), atol=1e-6)


def test_the_attention_of_every_layer_and_head_is_computed(model, inputs):
    weights = np.array(model.compute_attention(inputs["features"], inputs["tokens"]))
    expected = (model.config.num_layers, model.config.num_heads, inputs["tokens"].shape[1])
    assert weights.shape[1:4] == expected
    assert min(expected) > 1, "the test needs several layers, heads and words"
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.ptp(weights, axis=(1, 2)).max() > 1e-4


def test_special_tokens_have_masked_logits(model, inputs):
    logits = np.array(model(inputs))
    assert (logits[..., list(NEVER_GENERATED)] < -1e8).all()
    assert (logits[..., END:] > -1e3).all()


def test_the_initial_loss_is_that_of_the_word_frequencies(inputs, tiny_sizes):
    rng = np.random.default_rng(4)
    model = Transformer(VOCABULARY, TransformerConfig(**tiny_sizes["transformer"]))
    model.build({"features": (None, LOCATIONS, CHANNELS), "tokens": (None, None)})
    targets = rng.choice(np.arange(3, VOCABULARY), p=rng.dirichlet(np.ones(VOCABULARY - 3)), size=(4, 7))
    counts = np.bincount(targets.ravel(), minlength=VOCABULARY)
    counts[[PAD, UNKNOWN, START]] = [500, 70, 28]
    model.adapt(inputs["features"], counts)
    said = np.maximum(counts, 1)
    said[list(NEVER_GENERATED)] = 0
    shares = said / said.sum()
    assert float(MaskedCrossEntropy()(targets, model(inputs))) == pytest.approx(
        -np.log(shares[targets]).mean(), rel=2e-3
    )
    assert np.array(model.feature_normalization.mean) == pytest.approx(inputs["features"].mean(axis=(0, 1)), abs=1e-5)


def test_unknown_words_do_not_count_in_loss_and_metrics(model, inputs):
    targets = np.append(inputs["tokens"][:, 1:], np.full((4, 1), END, np.int32), axis=1)
    some = targets.copy()
    some[0, :3] = UNKNOWN
    kept, logits = some != UNKNOWN, np.array(model(inputs))
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(shifted, targets[..., None], -1)[..., 0]
    assert model.ignored_ids == (PAD, UNKNOWN)
    for smoothing in (0.0, 0.1):
        loss = MaskedCrossEntropy(smoothing, model.ignored_ids)
        even = -shifted[..., END:].mean(-1)
        expected = ((1 - smoothing) * losses + smoothing * even)[kept].mean()
        assert float(loss(some, logits)) == pytest.approx(expected, rel=1e-5)
    hits = (logits.argmax(-1) == targets)[kept].mean()
    for metric, expected in (
        (CrossEntropy(model.ignored_ids), losses[kept].mean()),
        (MaskedAccuracy(model.ignored_ids), hits),
    ):
        metric.update_state(some, logits)
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_more_tokens_than_positions_are_rejected_before_decoding(model):
    # The end token comes after the longest caption.
    make_decoder(model, GenerationConfig(max_new_tokens=model.config.max_length + 1))
    with pytest.raises(UsageError, match="--max-new-tokens"):
        make_decoder(model, GenerationConfig(max_new_tokens=model.config.max_length + 2))


def test_captions_longer_than_the_positions_are_rejected_before_training(store, tmp_path):
    for options, message in (
        ({"max_length": 8}, "longest caption has 9 tokens, and the model reads at most 8"),
        ({"max_length": 9, "max_new_tokens": 11}, "max_new_tokens is 11, and the model generates at most 10"),
    ):
        with pytest.raises(UsageError, match=message):
            capt.train_captioner(
                store=store.path, run_dir=tmp_path / "run", model="transformer", hyperparameters={"units": 8, **options}
            )
    assert not (tmp_path / "run").exists()


def test_training_starts_from_the_word_frequencies(store, tmp_path, tiny_sizes):
    options = {**tiny_sizes["transformer"], "learning_rate": 1e-9, "num_sample_captions": 0}
    figures = capt.train_captioner(
        store=store.path, run_dir=tmp_path / "run", model="transformer", epochs=1, hyperparameters=options
    )
    tokens = np.concatenate([row["tokens"][1:] for row in store.caption_tables()[0].captions().to_pylist()
                             if row["split"] == "train"])  # fmt: skip
    shares = np.bincount(tokens) / len(tokens)
    assert figures["loss"] == pytest.approx(-np.log(shares[tokens]).mean(), rel=0.01)


def test_image_dropout_acts_in_training_only(inputs, tiny_sizes):
    sizes = {**tiny_sizes["transformer"], "dropout": 0.0}
    differ = {}
    for rate in (0.0, 0.5):
        keras.utils.set_random_seed(5)
        model = Transformer(VOCABULARY, TransformerConfig(**sizes, image_dropout=rate))
        model.build({"features": (None, LOCATIONS, CHANNELS), "tokens": (None, None)})
        differ[rate] = bool(np.abs(np.array(model(inputs)) - np.array(model(inputs, training=True))).max() > 1e-4)
    assert differ == {0.0: False, 0.5: True}


def test_units_that_num_heads_does_not_divide_are_rejected():
    with pytest.raises(ValueError, match="units, 256, must be a multiple of num_heads"):
        MODELS["transformer"].config(num_heads=3)


@pytest.mark.parametrize("layer", [CachedMultiHeadAttention(8, 2, 0.1), DecoderLayer(8, 2, 0.1)])
def test_layers_survive_their_config(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_the_sizes_of_the_tutorial_are_the_defaults():
    config = TransformerConfig()
    assert (config.num_layers, config.units, config.num_heads, config.dropout) == (2, 256, 2, 0.5)
    assert config.max_caption_length == 50
    model = Transformer(5000, config)
    model.build({"features": (None, 49, 576), "tokens": (None, None)})
    words, positions, logits = 5000 * 256, (50 + 1) * 256, (256 + 1) * 5000
    self_attention = 4 * 256 * 256 + 3 * 256
    image_attention = 2 * 256 * 256 + 2 * 576 * 256 + 3 * 256
    feed_forward, norms = (256 + 1) * 512 + (512 + 1) * 256, 3 * 2 * 256
    layers = 2 * (self_attention + image_attention + feed_forward + norms)
    count = sum(np.prod(variable.shape) for variable in model.trainable_variables)
    assert count == words + positions + layers + logits


def test_the_papers_learning_rate_is_the_default():
    assert model_spec("transformer").config.training_defaults["learning_rate"] == 1e-4
