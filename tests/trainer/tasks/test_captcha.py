import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

import capt
from features.store import open_store
from features.text.charset import Charset
from schemas.errors import CaptError, StoreError, UsageError
from schemas.manifests import LabelFormat
from schemas.options.training import TrainCaptcha
from schemas.tables import SPLITS
from tests.trainer.killing import RECOGNIZER_INPUT, kill_after, start
from tests.trainer.run_files import learned, lines_of, weights_of
from tests.trainer.words import EPOCHS, SMALL, STEPS, WORDS, add_words, make_words
from trainer.data.captcha_data import join_labels
from trainer.data.labelled_batches import LabelledBatchReader, mix_datasets, shuffle_images
from trainer.data.table_selection import select_labelled_tables
from trainer.models import model_specs
from trainer.profiles import PROFILES
from trainer.runs.checkpoints import AVERAGE, Checkpoints
from trainer.runs.metadata import RecognizerMetadata, read_metadata
from trainer.runs.run import load_run
from trainer.tasks.captcha import CaptchaTask

OF_A_PASS = 10
CHANGING = {
    **SMALL,
    "ema_momentum": 0.8,
    "weight_decay": 0.01,
    "augment_zoom": 0.1,
    "augment_channel_permutation": True,
    "dropout": 0.3,
}


def test_it_learns_to_read_words_in_images_that_it_has_not_seen(words_run, captchas):
    run, figures = words_run
    assert figures["val_exact_match"] > 0.4
    unseen = [one for one in captchas if one.split == "test"]
    read = load_run(run).recognize_many([one.data for one in unseen])
    assert np.mean([made.text == one.word for made, one in zip(read, unseen, strict=True)]) > 0.4


def test_the_run_reports_accepted_and_skipped_records(words_run, captchas):
    run, figures = words_run
    rows = lines_of(run)
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert figures["images"] == {"train": 160, "val": 40, "test": 0}
    assert figures["without_label"] == {"train": 0, "val": 0, "test": 40}
    assert figures["steps"] == EPOCHS * STEPS
    assert figures["val_exact_match"] == max(row["val_exact_match"] for row in rows)
    assert figures["validation_split"] == "val"
    assert figures["images_per_second"] > 0
    json.dumps(figures)


def test_the_run_records_the_label_format_and_resumes_after_it_changed(squares, captchas, tmp_path):
    label_format = LabelFormat(separator="\t", line_end="\r\n")
    store = make_words(tmp_path / "store", squares, captchas[:60], label_format=label_format)
    settings = {"store": store.path, "run_dir": tmp_path / "run", "steps_per_epoch": 1, "hyperparameters": SMALL}
    capt.train_captcha(epochs=1, **settings)
    assert read_metadata(tmp_path / "run").label_format == label_format
    shutil.rmtree(store.dataset_root("captcha"))
    add_words(store, captchas[:60], ("train", "val"))
    assert capt.train_captcha(epochs=2, **settings)["epochs"] == 2


def test_the_run_directory_holds_all_that_is_promised(words_run, words_store):
    run, _ = words_run
    record = read_metadata(run)
    assert isinstance(record, RecognizerMetadata)
    assert record.features.fingerprint == words_store.feature_tables()[0].fingerprint
    assert (run / "words.txt").read_text().split() == sorted(WORDS)
    assert (run / "network.pb").read_bytes() == words_store.feature_tables()[0].extractor_path.read_bytes()
    assert (run / "loss.png").stat().st_size > 1000
    assert not list(run.rglob(".aside-*"))


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_result_of_an_uninterrupted_one(words_store, tmp_path):
    options = {"seed": 4, "epochs": 3, "save_steps": 1, "hyperparameters": {**CHANGING, "lr_schedule": "cosine"}}
    unbroken, run = tmp_path / "unbroken", tmp_path / "killed"
    assert start(words_store, unbroken, RECOGNIZER_INPUT, **options).wait() == 0
    stood = kill_after(start(words_store, run, RECOGNIZER_INPUT, **options), run, 0, 2)
    again = kill_after(start(words_store, run, RECOGNIZER_INPUT, **options), run, stood.epoch + 1, 1)
    assert (again.epoch, again.step) >= (stood.epoch + 1, 1)
    assert start(words_store, run, RECOGNIZER_INPUT, **options).wait() == 0
    for got, expected in zip(learned(lines_of(run)), learned(lines_of(unbroken)), strict=True):
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-5)
    calibrated, whole = read_metadata(run).calibration, read_metadata(unbroken).calibration
    assert calibrated.temperature == pytest.approx(whole.temperature, abs=2e-3)
    assert calibrated.ece == pytest.approx(whole.ece, abs=1e-2)
    for name in ("model.weights.h5", AVERAGE):
        got, expected = weights_of(run, name), weights_of(unbroken, name)
        assert got.keys() == expected.keys()
        for layer, value in expected.items():
            np.testing.assert_allclose(got[layer], value, rtol=1e-5, atol=1e-6, err_msg=layer)


@pytest.mark.slow
def test_tensorflow_complains_of_nothing(words_store, tmp_path):
    """In a process of its own: TensorFlow shares CTC's loops between sizes, and complains where a second size comes."""
    training = start(
        words_store, tmp_path / "run", RECOGNIZER_INPUT, epochs=1, hyperparameters={**SMALL, "batch_size": 12}
    )
    said = training.communicate()[1].decode()
    assert training.returncode == 0, said
    assert "error: " not in said


def test_what_is_averaged_is_validated_and_kept_beside_the_weights(words_store, tmp_path):
    figures = capt.train_captcha(
        store=words_store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters={**SMALL, "ema_momentum": 0.9}
    )
    assert figures["steps"] == OF_A_PASS
    last, average = weights_of(tmp_path / "run", "model.weights.h5"), weights_of(tmp_path / "run", AVERAGE)
    assert any(not np.array_equal(last[name], average[name]) for name in last if not name.startswith("optimizer"))


def test_other_data_or_settings_are_another_run(words_run, words_store, captchas, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(words_run[0], run)
    with pytest.raises(StoreError, match=r"another run: architecture\.units: expected 24, got 32"):
        capt.train_captcha(
            store=words_store.path,
            run_dir=run,
            epochs=EPOCHS,
            steps_per_epoch=STEPS,
            hyperparameters={**SMALL, "units": 32},
        )
    other = tmp_path / "store"
    shutil.copytree(words_store.path, other)
    relabeled = [c if c.image_id != "a0" else type(c)(c.image_id, c.split, c.data, "oat") for c in captchas]
    shutil.rmtree(other / "datasets")
    add_words(open_store(other), relabeled, ("train", "val"))
    with pytest.raises(StoreError, match="digest of the train split"):
        capt.train_captcha(store=other, run_dir=run, epochs=EPOCHS, steps_per_epoch=STEPS, hyperparameters=SMALL)


def test_a_finished_run_can_go_on_for_longer(words_run, words_store, tmp_path):
    shutil.copytree(words_run[0], tmp_path / "run")
    longer = {"epochs": EPOCHS + 1, "steps_per_epoch": STEPS}
    figures = capt.train_captcha(store=words_store.path, run_dir=tmp_path / "run", **longer, hyperparameters=SMALL)
    assert (figures["resumed_at"], figures["steps"]) == (EPOCHS * STEPS, (EPOCHS + 1) * STEPS)
    assert (
        read_metadata(tmp_path / "run").calibration.checkpoint == Checkpoints(tmp_path / "run" / "checkpoints").find()
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_epochs_and_filters_follow_from_the_number_of_train_images_unless_they_are_given(profile, words_store):
    options = TrainCaptcha(store=str(words_store.path), run_dir="run", profile=profile)
    task = CaptchaTask()

    def resolve(**settings):
        given = task.parse(profile, settings)
        tables = task.select_tables(words_store, options, given)
        return task.resolve(given, tables, task.load_data(tables))

    images = len(task.load_data(task.select_tables(words_store, options, task.parse(profile, {}))).train)
    chosen = PROFILES[profile]
    read = chosen.first_images + chosen.passes * images
    resolved = resolve()
    batch = resolved.training.batch_size
    full = -(-images // batch) * batch
    assert abs(resolved.training.epochs * full - read) <= full / 2
    assert resolved.architecture.filters == chosen.filters[0]
    per_epoch = 50 * 64
    assert abs(resolve(steps_per_epoch=50, batch_size=64).training.epochs * per_epoch - read) <= per_epoch / 2
    given = resolve(epochs=3, filters=[4, 4, 4])
    assert (given.training.epochs, given.architecture.filters) == (3, (4, 4, 4))


def test_a_run_has_the_filters_of_the_run_whose_weights_it_starts_from(words_run, words_store):
    options = TrainCaptcha(store=str(words_store.path), run_dir="run")
    task, start = CaptchaTask(), load_run(words_run[0])

    def resolve(**settings):
        given = task.parse(None, settings)
        tables = task.select_tables(words_store, options, given)
        return task.resolve(given, tables, task.load_data(tables), start).architecture.filters

    assert resolve() == start.metadata.config.filters != PROFILES["default"].choose_filters(1)
    assert resolve(filters=[4, 4, 4]) == (4, 4, 4)


def test_with_auto_the_language_model_follows_from_the_train_labels(words_run, words_store, caplog):
    options = TrainCaptcha(store=str(words_store.path), run_dir="run")
    task, start = CaptchaTask(), load_run(words_run[0])
    tables = task.select_tables(words_store, options, task.parse(None, {}))
    words = task.load_data(tables)
    labels = np.random.default_rng(1).integers(1000, 10_000, len(words.train))
    random = replace(words, splits={name: replace(words.train, labels=tuple(map(str, labels))) for name in SPLITS})

    def resolve(data, warm_start=None, **settings):
        return task.resolve(task.parse(None, settings), tables, data, warm_start).architecture.language_model

    with caplog.at_level("INFO", "capt.training"):
        assert resolve(words, language_model="auto") == "words"
        assert "160 labels" in caplog.messages[-1]
        assert resolve(random, language_model="auto") == "none"
    assert (resolve(words, language_model="none"), resolve(random)) == ("none", "words")
    assert resolve(random, head="attention", language_model="auto") == "words"
    assert resolve(random, start) == start.metadata.config.language_model == "words"
    assert resolve(random, start, language_model="auto") == "words"
    assert resolve(random, start, language_model="none") == "none"
    with pytest.raises(UsageError, match="language_model: the attention head"):
        resolve(words, head="attention", language_model="none")


def test_a_run_without_a_language_model_resumes_and_recognizes(words_store, captchas, tmp_path):
    settings = {"store": words_store.path, "run_dir": tmp_path / "run", "steps_per_epoch": 1, "hyperparameters": SMALL}
    capt.train_captcha(epochs=1, language_model="none", **settings)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["architecture"]["language_model"] == "none"
    assert capt.train_captcha(epochs=2, language_model="none", **settings)["resumed_at"] == 1
    with pytest.raises(StoreError, match=r"another run: architecture\.language_model: expected none, got words"):
        capt.train_captcha(epochs=2, **settings)
    (read,) = load_run(tmp_path / "run").recognize_many([captchas[0].data])
    assert 0 <= read.confidence <= 1


@pytest.mark.slow
def test_a_run_without_a_language_model_can_be_retrained_and_exported(words_store, captchas, tmp_path):
    settings = {"store": words_store.path, "steps_per_epoch": 1, "epochs": 1, "hyperparameters": SMALL}
    first, second = tmp_path / "first", tmp_path / "second"
    capt.train_captcha(run_dir=first, language_model="none", **settings)
    capt.train_captcha(run_dir=second, warm_start_from=first, **settings)
    assert read_metadata(second).config.language_model == "none"
    capt.export(run=second, out=tmp_path / "exported")
    (read,) = load_run(second).recognize_many([captchas[0].data])
    served = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    assert served(tf.constant([captchas[0].data]))["labels"].numpy().tolist() == [read.text.encode()]


def test_sets_of_a_few_images_are_not_read_without_end():
    profile = PROFILES["default"]
    assert (profile.count_epochs(1, 32), profile.count_epochs(1_000_000, 1 << 30)) == (2000, 1)


def test_larger_sets_train_larger_models():
    filters = {images: PROFILES["default"].choose_filters(images) for images in (4_999, 5_000, 20_000, 1_000_000)}
    assert list(filters.values()) == [(16, 32, 64), (24, 48, 96), (32, 64, 128), (32, 64, 128)]
    for images in filters:
        assert sum(PROFILES["best"].choose_filters(images)) > sum(filters[images])


def test_a_profile_is_a_set_of_defaults(words_store, tmp_path):
    with pytest.raises(UsageError, match="--profile: "):
        capt.train_captcha(store=words_store.path, run_dir=tmp_path / "run", profile="slow")
    with pytest.raises(UsageError, match="unknown option 'unit'"):
        capt.train_captcha(store=words_store.path, run_dir=tmp_path / "run", hyperparameters={"unit": 3})
    assert not (tmp_path / "run").exists()


def test_words_longer_than_the_model_reads_are_refused(words_store, tmp_path):
    with pytest.raises(UsageError, match="Set max_label_length to 4"):
        capt.train_captcha(
            store=words_store.path, run_dir=tmp_path / "run", hyperparameters={**SMALL, "max_label_length": 3}
        )


def test_a_store_without_words_names_the_command_that_makes_some(store, squares, captchas, tmp_path):
    with pytest.raises(StoreError, match=r"no dataset has images and labels.*capt prepare captcha"):
        capt.train_captcha(store=store.path, run_dir=tmp_path / "run", hyperparameters=SMALL)
    made = make_words(tmp_path / "store", squares, captchas, labeled_splits=("val",))
    with pytest.raises(CaptError, match="the train split has no labelled images"):
        capt.train_captcha(store=made.path, run_dir=tmp_path / "run", hyperparameters=SMALL)


def test_words_are_joined_to_their_images(words_store, captchas):
    tables = select_labelled_tables(words_store, model_specs.RECOGNIZER_INPUT)
    data = join_labels(tables)
    said = {captcha.key: captcha.word for captcha in captchas}
    for images in data.splits.values():
        assert [said[key.tobytes()] for key in images.keys] == list(images.labels)
        np.testing.assert_array_equal(tables.features.lookup(images.keys), images.rows)
    assert {name for _, name in data.train.names} == {c.image_id for c in captchas if c.split == "train"}


def test_an_epoch_shows_every_image_once_in_full_batches_and_another_order_each_time():
    order = shuffle_images(100, 16, 1, 0)
    assert order.shape == (7, 16)
    assert sorted(order.ravel()[:100]) == list(range(100))
    assert (order.ravel()[100:] == order.ravel()[:12]).all()
    assert (order != shuffle_images(100, 16, 1, 1)).any()
    assert (order == shuffle_images(100, 16, 1, 0)).all()
    assert shuffle_images(3, 8, 1, 0).shape == (1, 8)
    assert shuffle_images(100, 16, 1, 0, 4).shape == (4, 16)


def test_an_epoch_of_weighted_datasets_repeats_the_images_of_the_small_one():
    datasets = np.array([0] * 10 + [1] * 90)
    order = mix_datasets(datasets, (1, 3), 16, 1, 0, None)
    assert order.shape == (7, 16)
    counts = np.bincount(order.ravel(), minlength=100)
    assert (counts[:10].sum(), counts[10:].sum()) == (28, 84)
    assert set(counts[:10]) == {2, 3}
    assert set(counts[10:]) == {0, 1}
    assert (order == mix_datasets(datasets, (1, 3), 16, 1, 0, None)).all()
    assert (order != mix_datasets(datasets, (1, 3), 16, 1, 1, None)).any()
    assert np.isin(order, range(10)).any(axis=1).mean() > 0.8
    assert mix_datasets(datasets, (0.5, 0.5), 16, 1, 0, 3).shape == (3, 16)


@pytest.fixture(scope="module")
def two_datasets(squares, captchas, tmp_path_factory):
    """A store with the datasets `captcha` and `more`, of which each has a half of the train images."""
    train = [one for one in captchas if one.split == "train"][:80]
    store = make_words(tmp_path_factory.mktemp("two") / "store", squares, train)
    add_words(store, train[:8], ("train",), dataset="more")
    return store


@pytest.mark.slow
def test_datasets_are_mixed_with_their_weights_and_the_run_resumes(two_datasets, tmp_path):
    options = {
        "store": two_datasets.path,
        "dataset": ("captcha", "more"),
        "dataset_weights": "1,3",
        "steps_per_epoch": 2,
    }
    capt.train_captcha(run_dir=tmp_path / "run", epochs=1, hyperparameters=SMALL, **options)
    assert read_metadata(tmp_path / "run").training.dataset_weights == (1, 3)
    assert capt.train_captcha(run_dir=tmp_path / "run", epochs=2, hyperparameters=SMALL, **options)["epochs"] == 2
    with pytest.raises(StoreError, match=r"another run: training\.dataset_weights"):
        capt.train_captcha(
            run_dir=tmp_path / "run", epochs=2, hyperparameters=SMALL, **{**options, "dataset_weights": "1,2"}
        )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("1", r"--dataset-weights: got 1 weights for 2 datasets \(captcha, more\)"),
        ("1,0", "dataset_weights"),
        ("a,b", "dataset_weights"),
        ("1,inf", "dataset_weights"),
    ],
)
def test_wrong_weights_are_one_line(two_datasets, tmp_path, weights, message):
    with pytest.raises(UsageError, match=message):
        capt.train_captcha(
            store=two_datasets.path,
            run_dir=tmp_path / "run",
            dataset=("captcha", "more"),
            dataset_weights=weights,
            hyperparameters=SMALL,
        )


def test_weights_may_be_a_list_as_in_a_file_and_the_printed_default_is_valid():
    printed = capt.config(model="recognizer")
    assert printed["dataset_weights"] is None
    given = {"store": "s", "run_dir": "r"}
    assert TrainCaptcha(**given, dataset_weights=printed["dataset_weights"]).dataset_weights is None
    assert TrainCaptcha(**given, dataset_weights=[1, 0.5]).dataset_weights == "1,0.5"


def test_runs_without_weights_have_no_key_for_them(words_run):
    assert "dataset_weights" not in json.loads((words_run[0] / "run.json").read_text())["training"]


def test_batches_read_from_any_step_are_those_of_the_whole_epoch(words_store):
    tables = select_labelled_tables(words_store, model_specs.RECOGNIZER_INPUT)
    images = join_labels(tables).train
    reader = LabelledBatchReader(tables.features, images.rows, images.encode(Charset.from_labels(images.labels), 5))
    order = shuffle_images(len(images), 16, 1, 0)
    whole, rest = list(reader.dataset(order)), list(reader.dataset(order, 2))
    assert (len(whole), len(rest)) == (10, 8)
    for (pixels, ids), (later, later_ids) in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(pixels, later)
        np.testing.assert_array_equal(ids, later_ids)
    assert whole[0][1].shape == (16, 5)
    assert sum(len(pixels) for pixels, _ in reader.all_images(24)) == len(images)


def test_a_run_of_an_unknown_task_is_refused(words_run, tmp_path):
    record = json.loads((words_run[0] / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "task": "singing"}))
    with pytest.raises(StoreError, match="does not have the task 'singing'"):
        read_metadata(tmp_path)
