"""The demo learns both tasks, resumes, reports what its files say, and works on a user's images, too."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import capt
from features.synthetic.scenes.generator import make_scene
from features.synthetic.scenes.scene import HEIGHT, WIDTH
from schemas.errors import StoreError, UsageError
from schemas.options.workflows import Demo
from tests.workflows.test_example_pages import Page, assert_inert
from trainer.runs.captioner_run import Caption
from trainer.runs.directory import LOSS_PLOT
from workflows.demo import captchas, own_images, scenes
from workflows.demo.command import print_demo
from workflows.demo.page import ReadLabel
from workflows.demo.scenes import CaptionedScene, score_attention, score_captions
from workflows.demo.steps import Steps
from workflows.demo.training import train_run
from workflows.prepared_tasks import PreparedTask, find_prepared_task

SIDE = 8


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of a few images and one epoch per task."""
    for module, names in {
        scenes: {"NUM_SCENES": 40, "NUM_UNSEEN": 10, "EPOCHS": 1},
        captchas: {"NUM_TRAIN": 20, "NUM_VAL": 5, "NUM_UNSEEN": 8, "EPOCHS": 1},
        own_images: {"EPOCHS": 1, "STEPS_PER_EPOCH": 2},
    }.items():
        for name, value in names.items():
            monkeypatch.setattr(module, name, value)


def test_the_last_line_is_the_command_that_serves_both_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    part = {"examples": ["a circle"]}
    summary = {
        "captioning": {**part, "run_dir": str(tmp_path / "demo" / "captioner")},
        "captcha": {**part, "run_dir": str(tmp_path / "demo" / "recognizer")},
        "headline": "Done.",
        "seconds": 3.0,
        "report": "demo/report.html",
    }
    print_demo(summary)
    assert capsys.readouterr().out.splitlines()[-1].endswith(" serve demo/captioner demo/recognizer")


def caption_scene(number: int, text: str | None = None, *, looks_at_objects: bool = True) -> CaptionedScene:
    """A scene with a caption, by default its first reference, whose words look at the named objects or at a corner."""
    scene = make_scene(3, number)
    words = tuple(re.findall("[a-z]+", (text or scene.captions[0]).lower()))
    attention = np.zeros((len(words), SIDE * SIDE), np.float32)
    attention[:, 0] = 1
    for drawn in scene.objects if looks_at_objects else ():
        at = next(
            position
            for position in range(1, len(words))
            if words[position - 1 : position + 1] == (drawn.scene_object.color, drawn.scene_object.shape)
        )
        x, y = drawn.center
        attention[at - 1 : at + 1, int(y * SIDE / HEIGHT) * SIDE + int(x * SIDE / WIDTH)] = 2
    return CaptionedScene(scene, b"", Caption(" ".join(words), words, 0.0, attention))


def test_true_captions_are_counted_and_compared_with_those_of_other_scenes() -> None:
    captioned = [caption_scene(number) for number in range(1, 21)]
    captioned[0] = caption_scene(1, "a small red dog", looks_at_objects=False)
    correct = score_captions(captioned)
    assert correct["captions"]["fraction"] == 0.95
    assert all(score["chance"] < 0.4 for score in correct.values())


def test_attention_counts_if_its_maximum_is_on_the_named_object() -> None:
    on, off = ([caption_scene(number, looks_at_objects=looks) for number in range(1, 21)] for looks in (True, False))
    assert score_attention(on)["fraction"] > 0.9 > 0.1 > score_attention(off)["fraction"]
    assert score_attention(on)["words"] == 2 * sum(len(one.scene.objects) for one in on)
    assert 0 < score_attention(on)["chance"] < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ["photos"]}, "--images: the option requires --dataset-type"),
        ({"extractor": "vgg16"}, "--extractor: the option requires --dataset-type"),
        ({"limit_images": 5}, "--limit-images: the option requires --dataset-type"),
        ({"dataset_type": "flickr8k"}, "--images: the option is required with --dataset-type"),
    ],
)
def test_options_of_own_images_come_together(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        capt.demo(output=str(tmp_path / "demo"), **options)
    assert not (tmp_path / "demo").exists()


def test_each_choice_of_options_has_a_run_directory_of_its_own() -> None:
    choices: list[dict[str, object]] = [
        {},
        {"extractor": "vgg16"},
        {"limit_images": 9},
        {"annotations": ("a.txt",)},
        {"images": ("other",)},
    ]
    options = [Demo(**{"dataset_type": "flickr8k", "images": ("photos",), **choice}) for choice in choices]
    names = [own_images.describe_data(one, "random:7").dataset["dataset_name"] for one in options]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("flickr8k_[0-9a-f]{8}", name) for name in names)
    again = options[0].model_copy(update={"output": "elsewhere"})
    assert own_images.describe_data(again, "random:7").dataset["dataset_name"] == names[0]


@pytest.mark.parametrize(("dataset_type", "annotations"), [("webdataset", ("x",)), ("csv", ())])
def test_annotations_are_the_images_if_these_contain_them(dataset_type: str, annotations: tuple[str, ...]) -> None:
    options = Demo(dataset_type=dataset_type, images=("x",))
    assert own_images.describe_data(options, None).dataset["annotations"] == annotations


def test_a_directory_with_another_run_is_named_with_what_the_demo_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("another run", location=str(tmp_path / "run"), hint="Choose another --run-dir.")

    monkeypatch.setattr(PreparedTask, "train", refuse)
    task = find_prepared_task("captioner")
    with pytest.raises(StoreError) as raised:
        train_run(task, "captioner", tmp_path / "store", tmp_path / "run", {}, {}, "scenes", Steps())
    assert str(raised.value).endswith(f"another run. Choose another --output, or delete {tmp_path / 'run'}.")


@pytest.mark.slow
def test_a_dataset_without_unseen_images_is_refused_before_features_are_extracted(tmp_path: Path) -> None:
    made = tmp_path / "made"
    capt.synth_scenes(out=str(made), num_images=10)
    annotations = [str(made / "annotations" / "captions_train2017.json")]
    options = {"dataset_type": "coco", "images": [str(made / "images")], "annotations": annotations}
    with pytest.raises(UsageError, match="--annotations: no image of val or test has a caption") as raised:
        capt.demo(output=str(tmp_path / "demo"), extractor="scene_network", **options)
    assert "Add the annotation file of val or test" in raised.value.hint
    assert not capt.open_store(tmp_path / "demo" / "store").feature_tables()


def test_a_percentage_above_a_wrong_example_is_not_100(tmp_path: Path) -> None:
    read = [ReadLabel(b"", "cat", "cat")] * 399 + [ReadLabel(b"", "cot", "cat")]
    (tmp_path / LOSS_PLOT).write_bytes(b"")
    part = captchas.describe({"exact_match": 399 / 400, "unseen": 400, "run_dir": str(tmp_path)}, read)
    assert part.headline == "99.8% of 400 unseen CAPTCHAs are read without an error."


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_demo_reports_both_tasks_and_resumes(tmp_path: Path) -> None:
    result = capt.demo(output=str(tmp_path / "demo"))
    captioning, captcha = result["captioning"], result["captcha"]
    assert (captioning["images"], captioning["unseen"]) == (40, 10)
    assert (captcha["images"], captcha["unseen"]) == (33, 8)
    assert set(captioning["correct"]) == {"captions", "colors", "shapes"}
    assert 0 <= captcha["exact_match"] <= 1
    assert captcha["exact_match"] == pytest.approx(
        sum(one["text"] == one["label"] for one in captcha["examples"]) / captcha["unseen"]
    )
    assert result["notices"] == []
    page = Page(Path(result["report"]).read_text())
    assert_inert(page)
    assert result["headline"] in page.text
    again = capt.demo(output=str(tmp_path / "demo"))
    assert again["captioning"] == captioning
    assert again["captcha"] == captcha
    assert "0 extracted, 40 already in the store" in Page(Path(again["report"]).read_text()).text


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_demo_captions_own_images(tmp_path: Path) -> None:
    made = tmp_path / "made"
    capt.synth_scenes(out=str(made), num_images=50)
    options = {
        "output": str(tmp_path / "demo"),
        "dataset_type": "coco",
        "images": [str(made / "images")],
        "annotations": [str(path) for path in sorted((made / "annotations").iterdir())],
        "extractor": "scene_network",
    }
    result = capt.demo(**options, limit_images="train=30,val=8")
    assert "captcha" not in result
    captioning = result["captioning"]
    assert (captioning["unseen"], captioning["limit_images"]) == (8, "train=30,val=8")
    assert math.isfinite(captioning["metrics"]["cider_d"])
    assert any("there are no others" in notice for notice in result["notices"])
    assert captioning["images"] == 30
    assert any("trained on 30 images only" in notice for notice in result["notices"])
    text = Page(Path(result["report"]).read_text()).text
    assert "images, at most train=30,val=8" in text
    assert "CIDEr-D" in text
    # Other options in the same output directory are another run.
    other = capt.demo(**options, limit_images="train=20,val=8")["captioning"]
    assert (other["images"], other["unseen"]) == (20, 8)
    assert other["run_dir"] != captioning["run_dir"]


@pytest.mark.slow
def test_the_demo_convinces(tmp_path: Path) -> None:
    result = capt.demo(output=str(tmp_path / "demo"))
    assert result["captioning"]["correct"]["captions"]["fraction"] >= 0.9
    assert result["captioning"]["attention"]["fraction"] >= 0.9
    assert result["captcha"]["exact_match"] >= 0.9
    assert result["notices"] == []
