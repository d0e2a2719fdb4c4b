import json
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import capt
from schemas.errors import CaptError, StoreError, UsageError
from schemas.table_config import END, START
from trainer.data.caption_source import CaptionBatches

BATCH, SEED, EPOCH, STEP = 6, 3, 2, 4
NAMES = ("features", "tokens", "targets")
FRAMEWORKS = ("tensorflow", "keras", "apache_beam", "torch", "grain", "jax")


def assert_equal_batches(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in NAMES:
            assert np.asarray(one[name]).dtype == other[name].dtype
            assert np.array_equal(np.asarray(one[name]), other[name])


def from_keras(data):
    return [dict(zip(NAMES, (features, tokens, targets), strict=True)) for (features, tokens), targets in data]


def as_list(batches):
    return [batches[number] for number in range(len(batches))]


def read_step(batches: CaptionBatches, number: int) -> dict[str, np.ndarray]:
    return batches[number]


@pytest.fixture(scope="module")
def source(store):
    return capt.caption_source(store.path)


def test_a_caption_has_the_features_of_its_image(store, source, shown):
    table, words = store.feature_tables()[0], store.caption_tables()[0].vocabulary()
    found = [
        (one["image_key"], one["features"].tobytes(), tuple(one["tokens"].tolist()))
        for one in map(source.__getitem__, range(len(source)))
    ]
    expected = [
        (picture.key.hex(), features, (START, *map(words.index, text.split()), END))
        for picture in shown
        if picture.split == "train"
        for features in [table.get(picture.key).astype(np.float32).tobytes()]
        for text in picture.captions
    ]
    assert sorted(found) == sorted(expected)


def test_numbers_are_those_of_a_sequence(source):
    several = source.__getitems__([2, np.int64(0), -1])
    for one, number in zip(several, (2, 0, len(source) - 1), strict=True):
        assert one["image_key"] == source[number]["image_key"]
        assert one["tokens"].tolist() == source[number]["tokens"].tolist()
    for wrong in (len(source), -len(source) - 1):
        with pytest.raises(IndexError):
            source[wrong]
    batches = source.batches(BATCH, first_step=1)
    for wrong in (len(batches), -len(batches) - 1):
        with pytest.raises(IndexError):
            batches[wrong]


def test_tf_data_and_the_source_have_the_same_batches(store, source):
    data = capt.keras_dataset(store.path, batch_size=BATCH, seed=SEED)
    for epoch in range(2):
        assert_equal_batches(from_keras(data), as_list(source.batches(BATCH, seed=SEED, epoch=epoch)))
    ordered = capt.keras_dataset(store.path, batch_size=BATCH, shuffle=False, length=20)
    assert_equal_batches(from_keras(ordered), as_list(source.batches(BATCH, shuffle=False, length=20)))


def test_an_epoch_goes_on_in_its_middle(store, source):
    whole = as_list(source.batches(BATCH, seed=SEED, epoch=EPOCH))
    token = {"seed": SEED, "first_step": STEP}
    assert_equal_batches(as_list(source.batches(BATCH, epoch=EPOCH, **token)), whole[STEP:])
    data = capt.keras_dataset(store.path, batch_size=BATCH, initial_epoch=EPOCH, **token)
    assert_equal_batches(from_keras(data), whole[STEP:])
    assert len(data) == len(whole) - STEP
    with pytest.raises(tf.errors.OpError):
        from_keras(data)
    following = capt.keras_dataset(store.path, batch_size=BATCH, seed=SEED, initial_epoch=EPOCH + 1)
    assert_equal_batches(from_keras(following), as_list(source.batches(BATCH, seed=SEED, epoch=EPOCH + 1)))
    assert len(source.batches(BATCH, first_step=1000)) == 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_the_same_batches(source, method):
    batches = source.batches(BATCH, seed=SEED)
    expected = as_list(batches)
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert_equal_batches(pool.map(read_step, [batches] * len(batches), range(len(batches))), expected)


def test_a_source_is_sent_without_the_rows_of_its_table(store, source):
    table = store.feature_tables()[0]
    table.read(np.zeros(1, np.int64))
    assert len(pickle.dumps(table.data_source())) < 20_000


def test_ranks_divide_every_batch(source):
    options = {"seed": SEED, "epoch": 1, "drop_remainder": True}
    whole = as_list(source.batches(BATCH, **options))
    assert {len(one["tokens"]) for one in whole} == {BATCH}
    parts = [as_list(source.batches(BATCH, rank=rank, num_ranks=3, **options)) for rank in range(3)]
    for number, batch in enumerate(whole):
        for name in NAMES:
            joined = np.empty_like(batch[name])
            for rank in range(3):
                joined[rank::3] = parts[rank][number][name]
            assert np.array_equal(joined, batch[name])


@pytest.mark.parametrize(
    ("options", "location"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"num_ranks": 0}, "num_ranks"),
        ({"batch_size": 6, "num_ranks": 4}, "batch_size"),
        ({"rank": 1}, "rank"),
        ({"rank": -1}, "rank"),
        ({"epoch": -1}, "epoch"),
        ({"first_step": -1}, "first_step"),
        ({"length": 2}, "length"),
    ],
)
def test_wrong_numbers_are_refused(source, options, location):
    with pytest.raises(UsageError) as caught:
        source.batches(**options)
    assert caught.value.location == location


def test_ranks_with_unequal_parts_are_refused(source):
    ranks = next(ranks for ranks in range(2, len(source)) if len(source) % ranks)
    with pytest.raises(UsageError) as caught:
        source.batches(ranks, num_ranks=ranks)
    assert caught.value.location == "drop_remainder"
    assert len(source.batches(ranks, num_ranks=ranks, drop_remainder=True)) == len(source) // ranks


def test_a_source_without_captions_is_an_error(store):
    with pytest.raises(CaptError):
        capt.caption_source(store.path, "test")
    with pytest.raises(StoreError):
        capt.caption_source(store.path, caption_table="00")
    with pytest.raises(UsageError):
        capt.caption_source(store.path, "training")


def test_tables_have_the_same_rows_by_number_as_in_tf_data(store):
    table, captions, dataset = store.feature_tables()[0], store.caption_tables()[0], store.datasets()[0]
    rows = table.data_source()
    batches = list(table.dataset(5).as_numpy_iterator())
    assert len(rows) == table.rows
    assert [one["key"] for one in rows.__getitems__(range(len(rows)))] == [key for one in batches for key in one["key"]]
    expected = np.concatenate([one["value"] for one in batches])
    assert np.array_equal(np.stack([rows[number]["value"] for number in range(len(rows))]), expected)
    for one in (captions, dataset):
        found = [one.data_source()[number] for number in range(3)]
        expected = next(iter(one.record_batches())).slice(0, 3).to_pylist()
        assert [
            {name: np.asarray(value).tolist() for name, value in row.items() if name == "tokens"} for row in found
        ] == [{name: value for name, value in row.items() if name == "tokens"} for row in expected]
        assert [{**row, "tokens": None} for row in found] == [{**row, "tokens": None} for row in expected]
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_reading_imports_no_framework(store, source, tmp_path):
    for name in FRAMEWORKS:
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    program = (
        "import json, sys, capt\n"
        "store = capt.open_store(sys.argv[1])\n"
        "rows = store.feature_tables()[0].data_source()[0], store.caption_tables()[0].data_source()[0]\n"
        f"batch = capt.caption_source(sys.argv[1]).batches({BATCH}, seed={SEED})[0]\n"
        "print(json.dumps({name: value.tolist() for name, value in batch.items()}))\n"
    )
    command = [sys.executable, "-c", program, str(store.path)]
    path = f"{tmp_path}:{Path(capt.__file__).parent}"
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = source.batches(BATCH, seed=SEED)[0]
    assert json.loads(done.stdout) == {name: value.tolist() for name, value in expected.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_pytorch_reads_the_same_batches(source, workers):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    batches = source.batches(BATCH, seed=SEED, first_step=1)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=workers)
    assert_equal_batches(islice(loader, 3), as_list(batches)[:3])
    rows = list(torch.utils.data.DataLoader(source, batch_size=4, collate_fn=list, num_workers=workers))
    assert [row["image_key"] for some in rows for row in some] == [source[n]["image_key"] for n in range(len(source))]


@pytest.mark.parametrize("workers", [0, 2])
def test_grain_reads_the_same_batches_and_goes_on(source, workers):
    grain = pytest.importorskip("grain", reason="Grain is not installed")
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read flags of Abseil
    batches = source.batches(BATCH, seed=SEED, first_step=1)
    data = grain.MapDataset.source(batches).to_iter_dataset()
    if workers:
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    iterator = iter(data)
    assert_equal_batches(islice(iterator, 3), as_list(batches)[:3])
    state = iterator.get_state()
    resumed = iter(data)
    resumed.set_state(state)
    assert_equal_batches(resumed, as_list(batches)[3:])
