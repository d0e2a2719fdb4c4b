import itertools

import numpy as np
import pytest

import capt
from features.runtime.keras_settings import keras
from schemas.errors import CaptError, StoreError, UsageError
from schemas.table_config import END, PAD, START


def rows(batches):
    """The features, input tokens and targets of all captions, as hashable texts."""
    return [
        (one.numpy().tobytes(), tuple(given.numpy()), tuple(target.numpy()))
        for (features, tokens), targets in batches
        for one, given, target in zip(features, tokens, targets, strict=True)
    ]


def test_the_targets_are_the_input_tokens_shifted_by_one(store):
    (features, tokens), targets = next(iter(capt.keras_dataset(store.path, batch_size=8)))
    assert features.shape == (8, *store.feature_tables()[0].shape)
    assert (features.dtype, tokens.dtype, targets.dtype) == ("float32", "int32", "int32")
    for given, target in zip(tokens.numpy(), targets.numpy(), strict=True):
        length = np.count_nonzero(target)
        assert given[0] == START
        assert target[length - 1] == END
        assert given[1:length].tolist() == target[: length - 1].tolist()
        assert set(target[length:]) <= {PAD}


def test_a_pass_has_every_caption_once_with_the_features_of_its_image(store, shown):
    table, words = store.feature_tables()[0], store.caption_tables()[0].vocabulary()
    found = rows(capt.keras_dataset(store.path, "val", batch_size=5))
    expected = []
    for picture in shown:
        features = table.get(picture.key).astype(np.float32).tobytes()
        if picture.split == "val":
            expected += [(features, *(words.index(word) for word in text.split())) for text in picture.captions]
    assert sorted((one, *(n for n in given if n > END)) for one, given, _ in found) == sorted(expected)


def test_each_pass_has_another_order_and_a_seed_repeats_them(store):
    data, again = (capt.keras_dataset(store.path, seed=3) for _ in range(2))
    passes = [rows(data), rows(data)]
    assert passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1])
    assert [rows(again), rows(again)] == passes
    ordered = capt.keras_dataset(store.path, shuffle=False)
    assert rows(ordered) == rows(ordered)


def test_all_batches_have_the_same_length_and_their_number_is_known(store):
    data = capt.keras_dataset(store.path, batch_size=7, length=20)
    batches = list(data)
    assert {tuple(tokens.shape[1:]) for (_, tokens), _ in batches} == {(20,)}
    assert len(data) == len(batches)


def test_a_keras_model_of_ones_own_is_fitted(store):
    data = capt.keras_dataset(store.path)
    (features, tokens), _ = data.element_spec
    image, words = keras.Input(features.shape[1:]), keras.Input(tokens.shape[1:], dtype="int32")
    size = len(store.caption_tables()[0].vocabulary())
    start = keras.layers.Dense(8)(keras.layers.GlobalAveragePooling1D()(image))
    states = keras.layers.GRU(8, return_sequences=True)(keras.layers.Embedding(size, 8)(words), initial_state=start)
    model = keras.Model([image, words], keras.layers.Dense(size)(states))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD))
    losses = model.fit(data, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"batch_size": 0}, r"batch_size: invalid number 0"),
        ({"length": 4}, r"length: the longest caption has \d+ input tokens, more than 4. Use at least \d+, or"),
        ({"split": "unused"}, r"split: unknown split 'unused'. Use one of train, val, test"),
    ],
)
def test_wrong_numbers_and_splits_are_wrong_usage(store, options, problem):
    with pytest.raises(UsageError, match=problem):
        capt.keras_dataset(store.path, **options)


def test_a_split_without_captions_and_a_missing_table_are_one_line(store):
    with pytest.raises(CaptError, match=r"^squares: the split test has no captions of images with features"):
        capt.keras_dataset(store.path, "test")
    with pytest.raises(StoreError):
        capt.keras_dataset(store.path, caption_table="00")


def test_a_dataset_repeats_for_several_epochs(store):
    data = capt.keras_dataset(store.path, batch_size=50)
    assert len(list(itertools.islice(data.repeat(3), 100))) == 3 * len(data)
