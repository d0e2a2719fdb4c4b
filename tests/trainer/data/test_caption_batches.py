import ml_dtypes
import numpy as np
import pytest

from schemas.errors import CorruptFileError
from trainer.data.caption_batches import BatchReader
from trainer.data.caption_data import Captions
from trainer.data.caption_order import shuffle_captions, sort_captions, steps_per_epoch

SHAPE = (4, 3)


def captions_of(images=50, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, images)
    lengths = rng.integers(3, 15, counts.sum())
    return Captions(
        tokens=np.concatenate([[2, *rng.integers(4, 30, length - 2), 3] for length in lengths]).astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        image=np.repeat(np.arange(images), counts).astype(np.int32),
        keys=rng.integers(0, 256, (images, 32)).astype(np.uint8),
        rows=rng.permutation(images * 2)[:images],
    )


class Table:
    """Features that tell which row they are, and a note of what was read."""

    shape = SHAPE

    def __init__(self, dtype=np.float16, damaged=-1):
        self.dtype = dtype
        self.damaged = damaged
        self.brought = []
        self.reads = []

    def ensure_local(self, positions):
        self.brought += list(positions)

    def read(self, positions):
        self.reads.append(list(positions))
        if self.damaged in positions:
            raise CorruptFileError("expected SHA-256 aa, got bb", location="features-00000-of-00001.tfrecord")
        return np.broadcast_to(np.asarray(positions)[:, None, None], (len(positions), *SHAPE)).astype(self.dtype)


@pytest.fixture
def captions():
    return captions_of()


def test_an_epoch_contains_every_caption_once(captions):
    order = shuffle_captions(captions, 16, 1, 0)
    assert sorted(np.concatenate(order)) == list(range(len(captions)))
    assert len(order) == steps_per_epoch(captions, 16)
    assert sorted(map(len, order))[1:] == [16] * (len(order) - 1)


def test_the_order_is_a_function_of_seed_and_epoch(captions):
    def flat(*arguments):
        return np.concatenate(shuffle_captions(captions, 16, *arguments)).tolist()

    assert flat(1, 0) == flat(1, 0)
    assert len({tuple(flat(*a)) for a in ((1, 0), (1, 1), (2, 0), (2, 1))}) == 4


def test_all_captions_of_an_image_are_in_one_batch(captions):
    order = shuffle_captions(captions, 16, 1, 0)
    batches = [len(np.unique(captions.image[numbers])) for numbers in order]
    assert sum(batches) <= len(captions.rows) + len(order) - 1


def test_captions_of_similar_length_share_batches():
    captions = captions_of(1000)
    order = shuffle_captions(captions, 16, 1, 0)
    rng = np.random.default_rng(0)
    anyhow = np.array_split(rng.permutation(len(captions)), len(order))

    def padded(batches):
        return sum(len(numbers) * captions.lengths[numbers].max() for numbers in batches)

    assert padded(order) < 0.9 * padded(anyhow)


def test_steps_per_epoch_samples_with_replacement(captions):
    order = shuffle_captions(captions, 16, 3, 0, steps=40)
    assert [len(numbers) for numbers in order] == [16] * 40
    assert len(set(np.concatenate(order).tolist())) < 40 * 16
    again = shuffle_captions(captions, 16, 3, 0, steps=40)
    np.testing.assert_array_equal(np.concatenate(order), np.concatenate(again))


def test_the_validation_order_is_complete_and_constant(captions):
    order = sort_captions(captions, 16)
    assert sorted(np.concatenate(order)) == list(range(len(captions)))
    longest = captions.longest[captions.image[np.concatenate(order)]]
    assert (np.diff(longest) >= 0).all()
    np.testing.assert_array_equal(np.concatenate(order), np.concatenate(sort_captions(captions, 16)))


def test_a_batch_reads_each_image_once_and_maps_captions_to_images(captions):
    table = Table()
    reader = BatchReader(captions, table)
    assert table.brought == list(captions.rows)
    table.reads.clear()
    numbers = shuffle_captions(captions, 16, 1, 0)[0]
    features, image, tokens, targets = reader.read(numbers, 16)
    assert [len(read) for read in table.reads] == [len(set(captions.image[numbers]))]
    np.testing.assert_array_equal(features[image, 0, 0], captions.rows[captions.image[numbers]].astype(np.float16))
    for row, number in enumerate(numbers):
        words = captions.tokens[captions.starts[number] : captions.starts[number + 1]]
        assert tokens[row][: len(words)].tolist() == words[: tokens.shape[1]].tolist()
        assert targets[row][targets[row] > 0].tolist() == words[1:].tolist()


def test_a_short_batch_is_padded(captions):
    features, image, tokens, targets = BatchReader(captions, Table()).read(np.arange(5), 16)
    assert image.shape == (16,)
    assert tokens.shape[0] == targets.shape[0] == 16
    assert not tokens[5:].any()
    assert not targets[5:].any()
    assert image.max() < len(features)


def test_padding_to_multiples_reduces_shapes_and_keeps_the_content(captions):
    plain = BatchReader(captions, Table())
    rounded = BatchReader(captions, Table(), pad_tokens_to=4, pad_images_to=8)
    order = shuffle_captions(captions, 16, 1, 0)
    shapes = set()
    for numbers in order:
        a, b = plain.read(numbers, 16), rounded.read(numbers, 16)
        shapes.add((len(b[0]), b[2].shape[1]))
        np.testing.assert_array_equal(b[0][: len(a[0])], a[0])
        np.testing.assert_array_equal(b[3][:, : a[3].shape[1]], a[3])
        assert not b[3][:, a[3].shape[1] :].any()
    assert all(images % 8 == 0 and words % 4 == 0 for images, words in shapes)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_the_dataset_yields_batches_in_order_and_in_the_storage_dtype(captions, dtype):
    reader = BatchReader(captions, Table(dtype))
    order = shuffle_captions(captions, 16, 1, 0)
    batches = list(reader.dataset(order, 16).as_numpy_iterator())
    assert len(batches) == len(order)
    for numbers, (inputs, targets) in zip(order, batches, strict=True):
        expected = reader.read(numbers, 16)
        assert inputs["features"].dtype == dtype
        for got, want in zip((inputs["features"], inputs["image"], inputs["tokens"], targets), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(inputs["targets"], targets)


def test_the_dataset_can_start_within_an_epoch(captions):
    reader = BatchReader(captions, Table())
    order = shuffle_captions(captions, 16, 1, 0)
    whole = list(reader.dataset(order, 16).as_numpy_iterator())
    rest = list(reader.dataset(order, 16, first_step=3).as_numpy_iterator())
    assert len(rest) == len(order) - 3
    np.testing.assert_array_equal(rest[0][1], whole[3][1])


def test_a_read_error_is_kept(captions):
    reader = BatchReader(captions, Table(damaged=captions.rows[7]))
    with pytest.raises(Exception, match="SHA-256"):
        list(reader.dataset(shuffle_captions(captions, 16, 1, 0), 16))
    assert isinstance(reader.error, CorruptFileError)


def test_one_caption_per_image_is_sampled_in_each_epoch(captions):
    orders = [np.concatenate(shuffle_captions(captions, 16, 1, epoch, "one")) for epoch in range(30)]
    for numbers in orders:
        assert sorted(captions.image[numbers]) == list(range(50))
    assert len(shuffle_captions(captions, 16, 1, 0, "one")) == steps_per_epoch(captions, 16, "one") == 4
    assert orders[0].tolist() == np.concatenate(shuffle_captions(captions, 16, 1, 0, "one")).tolist()
    assert set(np.concatenate(orders)) == set(range(len(captions)))


def test_batches_of_one_caption_per_image_are_full(captions):
    order = shuffle_captions(captions, 16, 1, 0, "one", 7)
    assert [len(numbers) for numbers in order] == [16] * 7
    drawn = captions.image[np.concatenate(order)]
    assert len(set(drawn)) < len(drawn)
