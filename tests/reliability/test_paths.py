"""Stores, run directories and inputs lie on any path: each character of a name stands for itself."""

import json
import logging
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import pytest
import tensorflow as tf
import yaml

import capt
from features.io.plain_paths import plain_path
from features.store import open_store
from features.text.tokenizer import Tokenizer
from features.text.transform import write_transform
from schemas.errors import CaptError
from schemas.table_config import SPECIAL_TOKENS, CaptionTableConfig
from tests.conftest import noise_image
from tests.features.buckets import BUCKET, bucket
from tests.trainer.conftest import make_store, pictures

CHARACTERS = ["é", "写", " ", *"[]{}*?\\#%:'\""]
ODD = "é写 [a]{b}*?\\#%2F:'\""
PATTERNS = set("[]*?\\")
WORDS = [*SPECIAL_TOKENS, "a", "dog"]
CONFIG = CaptionTableConfig(dataset="d", vocabulary="given:00")
SIZES = {
    "embedding_dim": 8,
    "units": 8,
    "attention_dim": 8,
    "projection_dim": 8,
    "output_dim": 8,
    "batch_size": 8,
    "num_sample_captions": 0,
}


def files_of(directory: Path) -> dict[str, bytes]:
    """The bytes of every file below a directory, by path."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def put_photos(directory: Path, names: list[str]) -> Path:
    """A directory of seeded pictures."""
    directory.mkdir()
    for number, name in enumerate(names):
        noise_image(number, 32, 32).save(directory / name, "PNG")
    return directory


def put_captions(path: Path, names: list[str]) -> Path:
    """Two captions per picture, in every split."""
    rows = [
        {
            "image": name,
            "captions": [f"a {'red' if number % 2 else 'green'} thing", f"thing number {number % 3}"],
            "split": ("train", "train", "val", "test")[number % 4],
        }
        for number, name in enumerate(names)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


# === The transform ===


@pytest.fixture(scope="module")
def plain_transform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("plain")
    write_transform(WORDS, CONFIG, made)
    return made


@pytest.mark.parametrize("name", [*(f"a{character}b" for character in CHARACTERS), ODD, "a[b]c"])
def test_a_transform_has_the_same_bytes_and_tokens_on_any_path(
    tmp_path: Path, plain_transform: Path, name: str
) -> None:
    write_transform(WORDS, CONFIG, tmp_path / name)
    assert files_of(tmp_path / name) == files_of(plain_transform)
    tokenizer = Tokenizer(tmp_path / name)
    for _ in range(2):
        (row,) = tokenizer.tokenize(["A dog runs"]).rows()
        assert row.tolist() == [2, 4, 5, 1, 3]


def test_a_tokenizer_reads_its_own_vocabulary_and_no_sibling_that_its_path_would_match(tmp_path: Path) -> None:
    write_transform([*WORDS, "runs"], CONFIG, tmp_path / "ab")
    write_transform(WORDS, CONFIG, tmp_path / "a?")
    (row,) = Tokenizer(tmp_path / "a?").tokenize(["a dog runs"]).rows()
    assert row.tolist() == [2, 4, 5, 1, 3]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory with an odd name."""
    directory = tmp_path / f"tmp {ODD}"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return directory


def test_the_temporary_directory_may_have_an_odd_name_too(
    tmp_path: Path, temporary: Path, plain_transform: Path
) -> None:
    write_transform(WORDS, CONFIG, tmp_path / ODD)
    assert files_of(tmp_path / ODD) == files_of(plain_transform)
    assert Tokenizer(tmp_path / ODD).tokenize(["a dog"]).ids.tolist() == [2, 4, 5, 3]
    assert list(temporary.iterdir()) == []


def test_without_any_plain_temporary_directory_the_error_is_one_line(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.io.plain_paths._TEMPORARY", ())
    with pytest.raises(CaptError, match="TMPDIR"), plain_path(tmp_path / ODD):
        pass


def test_a_plain_path_is_the_directory_itself_and_a_link_goes_with_its_block(tmp_path: Path) -> None:
    with plain_path(tmp_path) as path:
        assert path == tmp_path
    (tmp_path / ODD).mkdir()
    with plain_path(tmp_path / ODD) as path:
        (path / "file").write_text("text")
        assert path.samefile(tmp_path / ODD)
    assert not path.parent.exists()
    assert (tmp_path / ODD / "file").read_text() == "text"


# === Exported runs ===


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner that was trained below odd names."""
    root = tmp_path_factory.mktemp("exported")
    store = make_store(root / f"store {ODD}", pictures())
    capt.train_captioner(store=str(store.path), run_dir=str(root / f"run {ODD}"), epochs=1, hyperparameters=SIZES)
    (root / f"run {ODD}").rename(root / "run")
    return root


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with a variable and an asset, as an exported run has them, on a plain path."""
    root = tmp_path_factory.mktemp("saved")
    (root / "vocabulary.txt").write_text("a\n")
    module = tf.Module()
    module.weights, module.vocabulary = tf.Variable([1.0]), tf.saved_model.Asset(str(root / "vocabulary.txt"))
    tf.saved_model.save(module, str(root / "plain"))
    return root


@pytest.mark.parametrize("character", [*CHARACTERS, "[a]"])
def test_tensorflow_loads_a_saved_model_from_any_path_but_a_pattern(saved: Path, character: str) -> None:
    served = saved / f"a{character}b"
    (saved / "plain").rename(served)
    try:
        tf.saved_model.load(str(served))
    except OSError:
        assert PATTERNS & set(character)
    finally:
        served.rename(saved / "plain")


@pytest.mark.parametrize(("name", "warned"), [(ODD, True), ("é写 {b}#%2F:'\"", False)])
def test_a_run_is_exported_to_any_path_and_a_pattern_is_reported(
    exported: Path, name: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="capt"):
        capt.export(run=str(exported / "run"), out=str(exported / name))
    assert bool(caplog.records) == warned
    (exported / name).rename(exported / "moved")
    try:
        made = tf.saved_model.load(str(exported / "moved")).signatures["serving_default"](images=tf.constant([b""]))
        assert made["errors"].numpy()[0]
        (asset,) = (exported / "moved" / "assets").iterdir()
        assert asset.read_bytes() == (exported / "run" / "vocabulary.txt").read_bytes()
    finally:
        (exported / "moved").rename(exported / name)


# === Buckets ===


@pytest.fixture
def served(tmp_path: Path) -> Iterator[None]:
    with bucket("s3", tmp_path / f"mirror {ODD}"):
        yield


@pytest.mark.slow
def test_a_store_in_a_bucket_below_an_odd_key_works(tmp_path: Path, served: None) -> None:
    odd = ODD
    names = [f"{number}{odd}.png" for number in range(8)]
    images, annotations = put_photos(tmp_path / odd, names), put_captions(tmp_path / f"{odd}.jsonl", names)
    source = {"dataset_type": "jsonl", "annotations": [str(annotations)]}
    store = f"s3://{BUCKET}/{odd}/store"
    pixels = {"extractor": "pixels", "height": 8, "width": 8}
    assert capt.prepare_features(store=store, images=[str(images)], **source, **pixels)["ok"] == 8
    assert capt.prepare_captions(store=store, **source)["ok"] == 16
    assert capt.prepare_features(store=store, images=[str(images)], **source, **pixels)["cached"] == 8
    assert capt.prepare_captions(store=store, **source)["cached"] == 16
    capt.store_compact(store=store)
    capt.store_gc(store=store, older_than="0s")
    verified = capt.store_verify(store=store)
    assert (verified["rows"], verified["damaged"], verified["missing"], verified["orphaned"]) == (24, [], [], [])
    assert len(capt.store_show(store=store, num_examples=2)["examples"]) == 2


# === The whole chain ===


def save_network(path: Path) -> Path:
    """A network that averages colours over a square grid of cells."""
    image = keras.Input((32, 32, 3))
    cells = keras.layers.AveragePooling2D(8, name="cells")(keras.layers.Rescaling(1 / 255)(image))
    keras.Model(image, cells).save(path)
    return path


@pytest.fixture
def odd(tmp_path: Path) -> Callable[[str], Path]:
    """A path with every odd character in it and in its directory."""
    (tmp_path / ODD).mkdir()
    return lambda name: tmp_path / ODD / f"{ODD} {name}"


@pytest.mark.slow
@pytest.mark.usefixtures("temporary")
def test_the_captioning_commands_work_on_any_path(odd: Callable[[str], Path]) -> None:
    names = [f"{number:03d}{ODD}.png" for number in range(16)]
    images, annotations = put_photos(odd("images"), names), put_captions(odd("captions.jsonl"), names)
    source = {"dataset_type": "jsonl", "annotations": [str(annotations)]}
    store, run = str(odd("store")), str(odd("run"))
    network = {"extractor": f"custom:{save_network(odd('network.keras'))}", "precision": "float32"}

    assert capt.prepare_features(store=store, images=[str(images)], **source, **network)["ok"] == 16
    assert capt.prepare_captions(store=store, **source)["ok"] == 32
    assert capt.prepare_features(store=store, images=[str(images)], dry_run=True, **source, **network)["hits"] == 16
    capt.train_captioner(store=store, run_dir=run, epochs=1, hyperparameters=SIZES)
    assert Path(capt.evaluate(runs=[run])["results_paths"][0]).is_file()
    attention = odd("attention.png")
    assert capt.caption(run=run, images=[str(images / names[0])], attention_plot=str(attention))["results"][0]["text"]
    assert attention.is_file()
    predicted = capt.predict_captions(run=run, images=[str(images)], output=str(odd("out.jsonl")))
    assert (predicted["images"], predicted["failed"]) == (16, 0)
    capt.export(run=run, out=str(odd("served")))
    with plain_path(odd("served")) as path:
        assert tf.saved_model.load(str(path)).signatures["serving_default"]

    with zipfile.ZipFile(odd("images.zip"), "w") as archive, tarfile.open(odd("images.tar"), "w") as tar:
        for name in names[:4]:
            archive.write(images / name, name)
            tar.add(images / name, name)
    for suffix in ("zip", "tar"):
        archived = str(odd(f"images.{suffix}"))
        done = capt.prepare_features(
            store=store, dataset_type="folder", dataset_name=suffix, images=[archived], **network
        )
        assert (done["cached"], done["failed"]) == (4, 0)
        assert len(capt.caption(run=run, images=[archived])["results"]) == 4

    more = put_photos(odd("more"), [f"{number}.png" for number in range(20)])
    assert (
        capt.prepare_features(store=store, dataset_type="folder", dataset_name="more", images=[str(more)], **network)[
            "ok"
        ]
        == 4
    )
    assert capt.store_ls(store=store)["feature_tables"][0]["rows"] == 20
    assert capt.store_stats(store=store)
    assert (
        len(capt.store_show(store=store, dataset="jsonl", output=str(odd("page.html")), num_examples=3)["examples"])
        == 3
    )
    assert capt.store_compact(store=store)["rows"] == 20
    capt.store_gc(store=store, older_than="0s")
    verified = capt.store_verify(store=store)
    assert (verified["rows"], verified["damaged"], verified["missing"], verified["orphaned"]) == (52, [], [], [])


@pytest.mark.slow
@pytest.mark.usefixtures("temporary")
def test_experiments_and_retraining_work_on_any_path(odd: Callable[[str], Path]) -> None:
    names = [f"{number:03d}{ODD}.png" for number in range(16)]
    images, annotations = put_photos(odd("images"), names), put_captions(odd("captions.jsonl"), names)
    network = {"extractor": f"custom:{save_network(odd('network.keras'))}", "precision": "float32"}
    source = {"dataset_type": "jsonl", "images": [str(images)], "annotations": [str(annotations)]}
    experiment = {
        "store": str(odd("experiment's store")),
        "output_dir": str(odd("experiment")),
        "data": source,
        "features": {"pooled": {**network, "pooling": "avg"}},
        "captions": {"words": None},
        "models": {"merge": {"model": "merge", "embedding_dim": 8, "units": 8}},
        "train": {"epochs": 1, "batch_size": 8, "num_sample_captions": 0},
        "evaluate": {"split": "val", "num_examples": 1},
    }
    odd("experiment.yaml").write_text(yaml.safe_dump(experiment))
    assert capt.experiment_run(file=str(odd("experiment.yaml")))["failed_trials"] == []
    capt.experiment_report(directory=str(odd("experiment")), output=str(odd("report.html")))
    assert odd("report.html").is_file()

    retraining = {
        "store": str(odd("model's store")),
        "name": "shapes",
        "data": [{**source, "dataset_name": "photos"}],
        "features": network,
        "train": {"model": "soft_attention", **SIZES, "epochs": 1},
    }
    odd("retrain.yaml").write_text(yaml.safe_dump(retraining))
    assert capt.retrain(file=str(odd("retrain.yaml")))["decision"] == "promoted"
    assert capt.retrain(file=str(odd("retrain.yaml")))["decision"] == "no_change"
    assert capt.store_verify(store=retraining["store"])["damaged"] == []


@pytest.mark.slow
@pytest.mark.usefixtures("temporary")
def test_the_captcha_commands_work_on_any_path(odd: Callable[[str], Path]) -> None:
    capt.synth_captcha(out=str(odd("captchas")), num_images=28)
    labels = next(odd("captchas").rglob("spec_train_val.txt"))
    store, run = str(odd("store")), str(odd("run"))
    assert capt.prepare_captcha(store=store, images=[str(labels.parent)], labels=str(labels))["ok"] == 28
    sizes = {"filters": (8, 24), "blocks_per_stage": (0, 1), "units": 24, "batch_size": 8, "precision": "float32"}
    capt.train_captcha(store=store, run_dir=run, epochs=1, hyperparameters=sizes)
    assert capt.recognize(run=run, images=[str(labels.parent / "a1.png")])["results"]
    predicted = capt.predict_captcha(run=run, images=[str(labels.parent)], ids="0:3", output=str(odd("words.txt")))
    assert predicted["failed"] == 0
    assert len(odd("words.txt").read_text().splitlines()) == 3
    assert capt.evaluate(runs=[run], split="val")["images"] == 4
    capt.export(run=run, out=str(odd("served")))
    with plain_path(odd("served")) as path:
        assert tf.saved_model.load(str(path)).signatures["serving_default"]
    assert open_store(store).feature_table("").rows == 28
