"""Trained runs: scores tell of images that a run knows, answers are those of the images that are there now."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import capt
from features.images.decode import open_image
from schemas.errors import ExitCode, NoUsableImageError, RecordError
from tests.conftest import noise_image
from trainer.inference.partial_output import PartialOutput
from trainer.runs.run import DECODE_BATCH, to_encoded_images

COUNT = 24
WORDS = ["abcde"[number % 5] + "abcde"[number // 5] for number in range(COUNT)]
SIZES = {"filters": (8, 24), "blocks_per_stage": (0, 1), "units": 24, "batch_size": 4}
LEARNING: dict[str, Any] = {"profile": "quick", "epochs": 1, "hyperparameters": SIZES}
CAPTIONER: dict[str, Any] = {
    "model": "nic",
    "hyperparameters": {"units": 8, "embedding_dim": 8, "epochs": 1, "batch_size": 4, "num_sample_captions": 0},
}
VECTORS: dict[str, Any] = {
    "extractor": "mobilenet_v3_small",
    "weights": "random:7",
    "storage_dtype": "float32",
    "pooling": "avg",
    "height": 32,
    "width": 32,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(folder: str, numbers: range, first: int = 0) -> str:
    Path(folder).mkdir(exist_ok=True)
    for number in numbers:
        noise_image(first + number, 32, 16).save(f"{folder}/a{number}.png")
    return folder


def captchas(splits: str, store: str = "store") -> None:
    draw("captchas", range(COUNT))
    Path("labels.txt").write_text("".join(f"a{number} {word}\n" for number, word in enumerate(WORDS)))
    capt.prepare_captcha(store=store, images=["captchas"], labels="labels.txt", height=16, width=32, split_sizes=splits)


def captions(*splits: str, **options: Any) -> dict[str, Any]:
    """Prepare a dataset of an image for each of the splits."""
    draw("photos", range(len(splits)))
    rows = [f"a{number}.png,word{number} of it,{split}" for number, split in enumerate(splits)]
    Path("c.csv").write_text("\n".join(["image,caption,split", *rows]) + "\n")
    named = {
        "store": "store",
        "dataset_type": "csv",
        "annotations": ["c.csv"],
        "dataset_name": options.pop("dataset_name", None),
    }
    capt.prepare_features(images=["photos"], **named, **VECTORS)
    result: dict[str, Any] = capt.prepare_captions(**named, **options)
    return result


# === Scores of images that a run learned from ===


def test_scores_count_the_training_images() -> None:
    captchas("16,4,4")
    capt.train_captcha(store="store", run_dir="run", **LEARNING)
    found = capt.evaluate(runs="run", num_examples=0)
    assert (found["images"], found["training_images"]) == (4, 0)
    notes = len(found["notes"])
    assert capt.evaluate(runs="run", split="train", num_examples=0)["training_images"] == 16
    capt.store_drop(store="store", dataset="captcha")
    captchas("4,4,16")
    found = capt.evaluate(runs="run", num_examples=0)
    assert (found["images"], found["training_images"], len(found["notes"])) == (16, 8, notes + 1)
    assert json.loads(Path(found["scores_path"]).read_text())["training_images"] == 8


@pytest.mark.slow
def test_a_run_has_learned_from_the_images_of_the_run_that_it_began_with() -> None:
    captchas("16,4,4")
    capt.train_captcha(store="store", run_dir="run", **LEARNING)
    capt.store_drop(store="store", dataset="captcha")
    captchas("4,4,16")
    capt.train_captcha(store="store", run_dir="warm", warm_start_from="run", **LEARNING)
    assert capt.evaluate(runs="warm", num_examples=0)["training_images"] == 8
    capt.train_captcha(store="store", run_dir="cold", **LEARNING)
    assert capt.evaluate(runs="cold", num_examples=0)["training_images"] == 0


@pytest.mark.slow
def test_scores_of_captions_count_the_training_images() -> None:
    words = captions(*["train"] * 8, "val", "val", "test", "test")["fingerprint"]
    splits = [*["train"] * 8, "val", "val", "test", "test"]
    captions(*splits, dataset_name="other", vocab_from=words)
    capt.train_captioner(store="store", run_dir="run", dataset=["other"], **CAPTIONER)
    found = capt.evaluate(runs="run", num_examples=0)
    assert (found["images"], found["training_images"], found["notes"]) == (2, 0, found["notes"])
    notes = len(found["notes"])
    capt.store_drop(store="store", dataset="other")
    captions(*reversed(splits), dataset_name="other", vocab_from=words)
    found = capt.evaluate(runs="run", num_examples=0)
    assert (found["images"], found["training_images"], len(found["notes"])) == (2, 2, notes + 1)


# === Images as Pillow has them ===


def pillow_images() -> Iterator[tuple[str, Image.Image]]:
    """A file of each kind, as a path and as Pillow opens it."""
    generator = np.random.default_rng(0)
    samples = generator.integers(0, 1 << 16, (9, 12)).astype(np.uint16)
    rgba = Image.fromarray(generator.integers(0, 256, (9, 12, 4), dtype=np.uint8))
    rgb = rgba.convert("RGB")
    turned = Image.Exif()
    turned[274] = 6
    palette = rgb.quantize(16)
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "grey16.png": (Image.fromarray(samples), {}),
        "grey16.tif": (Image.fromarray(samples), {}),
        "float.tif": (Image.fromarray((samples / 65535).astype(np.float32)), {}),
        "whole.tif": (Image.fromarray(samples.astype(np.int32)), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "cmyk.tif": (rgb.convert("CMYK"), {}),
        "lab.tif": (rgb.convert("LAB"), {}),
        "alpha.png": (rgba, {}),
        "alpha.tif": (rgba, {}),
        "alpha.webp": (rgba, {"lossless": True}),
        "grey-alpha.png": (rgba.convert("LA"), {}),
        "grey-key.png": (rgb.convert("L"), {"transparency": 100}),
        "bits.png": (rgb.convert("1"), {}),
        "palette.png": (palette, {"transparency": 3}),
        "moving.gif": (palette, {"save_all": True, "append_images": [palette.rotate(180)]}),
        "turned.jpg": (rgb, {"exif": turned}),
        "turned.png": (rgb, {"exif": turned}),
        "turned.tif": (rgb, {"exif": turned}),
    }
    for name, (image, options) in files.items():
        image.save(name, **options)
        yield name, Image.open(name)


def seen(image: Any) -> bytes | str:
    """The pixels that a run sees of an image, or why it sees none."""
    (source,) = to_encoded_images([image])
    try:
        return open_image(source.read()).tobytes()
    except RecordError as error:
        return error.reason


def test_a_run_sees_an_image_of_pillow_as_the_store_sees_its_file() -> None:
    for name, image in pillow_images():
        assert seen(image) == seen(name), name


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "F"])
def test_levels_of_more_than_eight_bits_are_scaled(mode: str) -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8).reshape(4, -1)
    samples = levels.astype(np.uint16) * 257
    images = {
        "I;16": Image.fromarray(samples),
        "I;16B": Image.frombytes("I;16B", levels.shape[::-1], samples.astype(">u2").tobytes()),
        "F": Image.fromarray((levels / 255).astype(np.float32)),
    }
    assert seen(images[mode]) == Image.fromarray(levels).convert("RGB").tobytes()


def test_samples_without_a_defined_white_are_refused() -> None:
    assert seen(Image.fromarray(np.full((4, 4), 70_000, np.int32))) == "unsupported"


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "PA"])
def test_what_is_transparent_shows_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (200, 10, 10, 0))
    image = Image.new("P", (4, 4)).convert("PA") if mode == "PA" else clear.convert(mode)
    if mode == "PA":
        image.putalpha(Image.new("L", (4, 4), 0))
    assert seen(image) == b"\xff" * 48


# === Answers for whole folders ===


def kill_after_a_batch(monkeypatch: pytest.MonkeyPatch, **job: Any) -> None:
    """Caption folders, and stop when the first lines are kept."""
    add = PartialOutput.add

    def stop(self: PartialOutput, lines: Any) -> None:
        add(self, lines)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartialOutput, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            capt.predict_captions(**job)


@pytest.mark.slow
def test_captions_of_images_that_were_replaced_meanwhile_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    captions(*["train"] * 4, "val", "test")
    capt.train_captioner(store="store", run_dir="run", **CAPTIONER)
    draw("many", range(2 * DECODE_BATCH + 6))
    kill_after_a_batch(monkeypatch, run="run", images=["many"], output="out.jsonl")
    assert Path("out.jsonl.part").exists()
    draw("many", range(3), first=1000)
    assert capt.predict_captions(run="run", images=["many"], output="out.jsonl")["resumed"] == 0
    capt.predict_captions(run="run", images=["many"], output="unbroken.jsonl")
    assert Path("out.jsonl").read_bytes() == Path("unbroken.jsonl").read_bytes()


@pytest.mark.slow
def test_a_command_that_answers_for_no_image_fails() -> None:
    captions(*["train"] * 4, "val", "test")
    capt.train_captioner(store="store", run_dir="run", **CAPTIONER)
    Path("empty").mkdir()
    Path("bad.png").write_bytes(b"no image")
    for images in (["missing"], ["empty"], ["bad.png"], ["missing", "bad.png"]):
        with pytest.raises(NoUsableImageError) as caught:
            capt.caption(run="run", images=images)
        assert len(caught.value.summary["results"]) == len(images)
        with pytest.raises(NoUsableImageError) as caught:
            capt.predict_captions(run="run", images=images, output="out.jsonl")
        assert (caught.value.exit_code, caught.value.summary["failed"]) == (ExitCode.TOO_MANY_FAILURES, len(images))
        assert len(Path("out.jsonl").read_text().splitlines()) == len(images)
    assert capt.predict_captions(run="run", images=["photos", "missing"], output="out.jsonl")["failed"] == 1
    assert len(capt.caption(run="run", images=["photos", "missing"])["results"]) == 7


@pytest.mark.slow
def test_a_temperature_draws_for_every_image_of_a_split_of_several_batches() -> None:
    captions(*["train"] * 4, *["test"] * (DECODE_BATCH + 6))
    capt.train_captioner(store="store", run_dir="run", **CAPTIONER)
    assert capt.evaluate(runs="run", num_examples=0, temperature=1.0)["images"] == DECODE_BATCH + 6
