import shutil

import pytest

import capt
from schemas.errors import UsageError
from trainer.config import parse_options
from trainer.models.model_specs import MODELS
from trainer.runs.run import load_run
from trainer.training.sample_captions import short_names

SMALL = {"units": 16, "embedding_dim": 12, "attention_dim": 10, "projection_dim": 14, "output_dim": 18}


def train(store, run, **hyperparameters):
    options = {**SMALL, "batch_size": 32, "learning_rate": 0.01, "num_sample_captions": 0, **hyperparameters}
    return capt.train_captioner(store=store.path, run_dir=run, epochs=2, hyperparameters=options)


@pytest.fixture
def photos(shown, tmp_path):
    """Two image files."""
    paths = [tmp_path / name for name in ("one.png", "two.png")]
    for path, picture in zip(paths, shown, strict=False):
        path.write_bytes(picture.data)
    return paths


@pytest.fixture
def log(caplog):
    caplog.set_level("INFO", "capt.training")
    return lambda: [message for message in caplog.messages if "“" in message]


def test_own_images_are_captioned_after_each_epoch_at_every_temperature(store, photos, tmp_path, log):
    train(store, tmp_path / "run", sample_images=photos, sample_temperatures=[0, 0.5, 1])
    names = [line.partition(": “")[0] for line in log()]
    assert names == [
        f"epoch {epoch}: {name}, temperature {temperature}"
        for epoch in (1, 2)
        for name in ("one.png", "two.png")
        for temperature in ("0", "0.5", "1")
    ]


def test_greedy_captions_of_own_images_equal_those_of_the_run(store, photos, tmp_path, log):
    summary = train(store, tmp_path / "run", sample_images=photos)
    assert summary["best_epoch"] == 2
    run = load_run(tmp_path / "run")
    assert log()[-2:] == [f"epoch 2: {photo.name}: “{run.caption(photo).text}”" for photo in photos]


def test_validation_images_are_captioned_at_every_temperature_as_well(store, tmp_path, log):
    train(store, tmp_path / "run", num_sample_captions=1, sample_temperatures=[0, 1])
    first, second, *_ = log()
    assert first.startswith("epoch 1: temperature 0: “")
    assert second.startswith("epoch 1: temperature 1: “")
    assert first.partition(" (reference: ")[2] == second.partition(" (reference: ")[2] != ""


def test_sample_images_do_not_change_what_is_learned(store, photos, tmp_path):
    plain = train(store, tmp_path / "plain")
    sampled = train(store, tmp_path / "sampled", sample_images=photos, sample_temperatures=[0, 1])
    assert sampled["val_loss"] == plain["val_loss"]
    assert load_run(tmp_path / "sampled").identity == load_run(tmp_path / "plain").identity


def test_the_sample_images_may_change_when_a_run_resumes(store, photos, tmp_path):
    train(store, tmp_path / "run", sample_images=photos)
    shutil.move(photos[0], tmp_path / "three.png")
    train(store, tmp_path / "run", sample_images=tmp_path / "three.png")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("none.png", r"sample_images: .*none\.png: the image cannot be captioned: read: missing"),
        ("text.png", r"sample_images: .*text\.png: the image cannot be captioned: decode: unsupported"),
        ("", r"sample_images: .*: the image cannot be captioned: read: .*Choose an image file"),
    ],
)
def test_an_image_that_cannot_be_captioned_is_an_error_before_training(store, tmp_path, name, complaint):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UsageError, match=complaint):
        train(store, tmp_path / "run", sample_images=[tmp_path / name])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("sample_temperatures", [0, -1], r"sample_temperatures\.1: -1 is not a temperature: it is 0 .*, got -1"),
        ("sample_temperatures", [1e-9], r"sample_temperatures\.0: 1e-09 is not a temperature"),
        ("sample_temperatures", "hot", r"sample_temperatures\.0: .*valid number, got 'hot'"),
        ("sample_temperatures", True, r"sample_temperatures\.0: .*valid number, got True"),
        ("sample_temperatures", None, "sample_temperatures: Input should be a list, got None"),
        ("sample_temperatures", [], "sample_temperatures: .*at least 1 item"),
        ("sample_images", 3, r"sample_images\.0: .*valid string, got 3"),
    ],
)
def test_invalid_sample_settings_are_wrong_usage(store, tmp_path, name, value, complaint):
    with pytest.raises(UsageError, match=complaint):
        train(store, tmp_path / "run", **{name: value})
    assert not (tmp_path / "run").exists()


def test_images_of_the_same_name_are_told_apart_by_their_paths():
    assert short_names(["good/1.png", "good/2.png"]) == ("1.png", "2.png")
    assert short_names(["good/1.png", "bad/1.png"]) == ("good/1.png", "bad/1.png")


def test_one_image_and_one_temperature_need_no_list():
    training, _ = parse_options(MODELS["nic"].config, {"sample_images": "a.png", "sample_temperatures": 0.5})
    assert (training.sample_images, training.sample_temperatures) == (("a.png",), (0.5,))
