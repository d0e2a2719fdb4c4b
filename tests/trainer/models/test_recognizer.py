import keras
import numpy as np
import pytest

from tests.trainer.alignments import LETTERS, NUM_CLASSES
from trainer.decoding.label_decoder import LabelDecoder
from trainer.models.configs import RecognizerConfig
from trainer.models.recognizer import ColumnAttention, Convolution, PositionAttention, Recognizer, ResidualBlock

HEIGHT, WIDTH = 32, 48
SIZES = {"filters": (8, 12, 16), "blocks_per_stage": (0, 1, 1), "units": 12}
LABELS = {"charset": "".join(LETTERS.characters), "max_label_length": 5}


def made(**fields):
    keras.utils.set_random_seed(3)
    model = Recognizer(RecognizerConfig(**{**SIZES, **LABELS, **fields}))
    model.build((None, HEIGHT, WIDTH, 3))
    return model


def figures(model, images, words):
    model.compile(optimizer="sgd")
    return model.evaluate(images, words, verbose=0, return_dict=True)


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, HEIGHT, WIDTH, 3)).astype(np.uint8)


def test_outputs_have_a_time_step_per_four_pixels_and_a_position_per_character(model, images):
    outputs = model(images)
    assert {name: tuple(logits.shape) for name, logits in outputs.items()} == {
        "ctc": (6, WIDTH // 4, NUM_CLASSES),
        "attention": (6, 5, NUM_CLASSES),
        "cells": (6, HEIGHT // 8 * WIDTH // 8, NUM_CLASSES),
    }
    assert {logits.dtype.name for logits in outputs.values()} == {"float32"}


def test_logits_do_not_depend_on_the_batch(model, images):
    together = model(images)
    for i in range(len(images)):
        alone = model(images[i : i + 1])
        for name, logits in together.items():
            np.testing.assert_allclose(logits[i], alone[name][0], atol=1e-5)


@pytest.mark.parametrize("language_model", ["none", "words"])
def test_only_with_words_does_a_time_step_depend_on_the_whole_image(language_model):
    model = made(language_model=language_model)
    one = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, 160, 3)).astype(np.uint8)
    other = one.copy()
    other[:, :, 80:] = 0
    logits, changed = (np.array(model(images)["ctc"]) for images in (one, other))
    differs = (logits != changed).any(axis=(0, 2))
    assert differs[20:].all()
    assert differs[:5].all() == (language_model == "words")


def test_without_a_language_model_there_is_no_attention_head(images):
    model = made(language_model="none")
    assert model(images).keys() == {"ctc", "cells"}
    words = LETTERS.encode(["a", "null", "zzz", "on", "who", "what"])
    values = figures(model, images, words)
    assert values["loss"] > values["head_loss"] > 0
    assert model.count_params() < made().count_params()


def test_the_attention_head_requires_words():
    with pytest.raises(ValueError, match="attention head"):
        RecognizerConfig(head="attention", language_model="none")


@pytest.mark.slow  # In the fast suite, a whole run learns with CTC: tests/trainer/tasks/test_captcha.py.
@pytest.mark.parametrize("head", ["ctc", "attention"])
def test_each_head_learns_to_recognize(head):
    # A letter is a patch of its own colour.
    rng = np.random.default_rng(1)
    words = ["ab", "ba", "aab", "b"]
    images = np.full((len(words), HEIGHT, WIDTH, 3), 255, np.uint8)
    for image, word in zip(images, words, strict=True):
        for i, letter in enumerate(word):
            image[8:20, 4 + 14 * i : 14 + 14 * i] = (0, 0, 200) if letter == "a" else (220, 90, 0)
    images = np.clip(images + rng.normal(0, 5, images.shape), 0, 255).astype(np.uint8)
    model = made(head=head, units=48, dropout=0.0)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    logs = model.fit(images, LETTERS.encode(words), epochs=100, batch_size=4, verbose=0).history
    assert logs["head_loss"][-1] < 0.2
    assert logs["exact_match"][-1] == 1
    assert set(figures(model, images, LETTERS.encode(words))) == {"loss", "head_loss", "exact_match"}
    predictions = LabelDecoder(LETTERS, head, "greedy")(np.array(model(images, training=True)[head]))
    assert [prediction.text for prediction in predictions] == words


def test_the_loss_is_the_weighted_sum_of_its_parts(images):
    words = LETTERS.encode(["a", "null", "zzz", "on", "who", "what"])
    whole = figures(made(), images, words)
    head = figures(made(ace_loss_weight=0.0, auxiliary_loss_weight=0.0), images, words)
    assert head["loss"] == pytest.approx(head["head_loss"], rel=1e-5)
    assert whole["head_loss"] == pytest.approx(head["head_loss"], rel=1e-5)
    assert whole["loss"] > head["loss"] + 1


def test_a_recognizer_survives_config_and_weights(model, images, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    again = Recognizer.from_config(model.get_config())
    again.build((None, HEIGHT, WIDTH, 3))
    again.load_weights(tmp_path / "model.weights.h5")
    for name, logits in model(images).items():
        np.testing.assert_array_equal(logits, again(images)[name])


def test_mixed_precision_gives_float32_logits_close_to_float32(model, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = made()
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    for name, logits in half(images).items():
        assert logits.dtype.name == "float32"
        np.testing.assert_allclose(logits, model(images)[name], atol=0.1)


@pytest.mark.parametrize("layer", [Convolution(8, stride=2), ResidualBlock(8), ColumnAttention(), PositionAttention(5)])
def test_layers_survive_their_config(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_blocks_per_stage_and_filters_have_equal_lengths():
    with pytest.raises(ValueError, match="blocks_per_stage must have as many numbers as filters, 3"):
        RecognizerConfig(blocks_per_stage=(1, 2))
    with pytest.raises(ValueError, match="blocks_per_stage must have as many numbers as filters, 2"):
        RecognizerConfig(filters=(8, 8))


def test_rows_of_text_are_read_one_after_the_other(images):
    model = made(text_rows=2)
    whole = model(images)["ctc"]
    assert whole.shape[1] == 2 * WIDTH // 4 == model.config.count_time_steps(WIDTH)
    cells = np.random.default_rng(0).normal(size=(1, 4, 6, 16)).astype(np.float32)
    changed = cells.copy()
    changed[:, 2:] += 1
    one, other = (np.array(model._attend_to_rows(values)) for values in (cells, changed))
    np.testing.assert_array_equal(one[:, :6], other[:, :6])
    assert (one[:, 6:] != other[:, 6:]).all()


@pytest.mark.parametrize("shape", [(9, 10), (28, 28), (16, 333), (97, 41)])
def test_images_of_any_size_are_read(shape):
    config = RecognizerConfig(**SIZES, **LABELS)
    logits = Recognizer(config)(np.zeros((2, *shape, 3), np.uint8))["ctc"]
    assert tuple(logits.shape) == (2, config.count_time_steps(shape[1]), NUM_CLASSES)
