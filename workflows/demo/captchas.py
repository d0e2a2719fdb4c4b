"""Learns to read easy CAPTCHAs, and reads CAPTCHAs that it has not seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features.synthetic.captchas.dataset import IMAGE_DIR, TRUTH_FILE, make_captchas
from features.synthetic.captchas.fonts import find_default_fonts
from features.synthetic.captchas.labels import load_default_words
from features.synthetic.captchas.style import CaptchaStyle
from schemas.errors import RecordError
from trainer.data.label_file import read_label_file
from trainer.runs.directory import LOSS_PLOT
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import load_run
from workflows.demo.page import DemoPart, Measure, ReadLabel
from workflows.demo.steps import Steps
from workflows.demo.training import train_run
from workflows.prepared_tasks import find_prepared_task

NUM_TRAIN, NUM_VAL, NUM_UNSEEN = 4000, 200, 200
SEED = 7
EPOCHS = 14
HEIGHT, WIDTH = 40, 80
HYPERPARAMETERS: dict[str, Any] = {
    "profile": "quick",
    "filters": (32, 64, 96),
    "blocks_per_stage": (0, 1, 1),
    "units": 64,
    "batch_size": 16,
    "learning_rate": 0.002,
    "augment_translation": 0.03,
    "augment_zoom": 0.05,
    "ema_momentum": 0.99,
    "seed": SEED,
}
# One font, words of three or four letters, few strokes, and a small background.
FONT, MAX_LETTERS = "DejaVuSans-Bold", 4
DIFFICULTY: dict[str, Any] = {"num_strokes": (0, 2), "max_rotation": 8, "width": 200, "height": 100}
_NUM_SHOWN = 11


def demonstrate_captchas(root: Path, store: Path, steps: Steps) -> DemoPart:
    """Runs the recognition part of the demo."""
    directory, run_dir = root / "captchas", root / "recognizer"
    task = find_prepared_task("captcha")
    made = steps.run(
        "generate CAPTCHAs", lambda: _make_captchas(directory), "{images} images of {words} words".format_map
    )
    dataset = {
        "dataset_name": "captchas",
        "images": str(directory / IMAGE_DIR),
        "labels": str(directory / TRUTH_FILE),
        "split_sizes": f"{NUM_TRAIN},{NUM_VAL},{NUM_UNSEEN}",
        "height": HEIGHT,
        "width": WIDTH,
    }
    pixels = steps.run(
        "resize CAPTCHAs",
        lambda: task.preparations["features"].prepare(store, dataset),
        "{ok} resized, {cached} already in the store, {failed} failed".format_map,
    )
    hyperparameters, tables = {**HYPERPARAMETERS, "epochs": EPOCHS}, {"features": pixels["fingerprint"]}
    training = train_run(task, "recognizer", store, run_dir, hyperparameters, tables, "captchas", steps)
    read = steps.run(
        "read unseen CAPTCHAs", lambda: _read(directory, load_run(run_dir)), lambda labels: f"{len(labels)} labels"
    )
    summary = {
        "images": made["images"],
        "unseen": len(read),
        "exact_match": sum(one.is_right for one in read) / len(read),
        "epochs": training["epochs"],
        "val_exact_match": training["val_exact_match"],
        "run_dir": str(run_dir),
        "examples": [{"label": one.label, "text": one.text} for one in read[:_NUM_SHOWN]],
    }
    return describe(summary, read)


def _make_captchas(directory: Path) -> dict[str, Any]:
    words = tuple(word for word in load_default_words() if len(word) <= MAX_LETTERS)
    style = CaptchaStyle(words, find_default_fonts((FONT,)), **DIFFICULTY)
    count = NUM_TRAIN + NUM_VAL + NUM_UNSEEN
    return make_captchas(style, directory, count, SEED, count)


def _read(directory: Path, run: RecognizerRun) -> list[ReadLabel]:
    labels = read_label_file(directory / TRUTH_FILE)
    names = [f"a{number}" for number in range(NUM_TRAIN + NUM_VAL, NUM_TRAIN + NUM_VAL + NUM_UNSEEN)]
    images = [(directory / IMAGE_DIR / f"{name}.png").read_bytes() for name in names]
    predictions = run.recognize_many(images)
    # An image that cannot be decoded counts as one that is read wrongly.
    texts = ["" if isinstance(prediction, RecordError) else prediction.text for prediction in predictions]
    return [ReadLabel(image, text, labels[name]) for name, image, text in zip(names, images, texts, strict=True)]


def describe(summary: dict[str, Any], read: Sequence[ReadLabel]) -> DemoPart:
    """Returns the part of the page on CAPTCHAs: those read correctly first, then one that is not."""
    fraction, unseen = summary["exact_match"], summary["unseen"]
    right = [one for one in read if one.is_right][:_NUM_SHOWN]
    wrong = [one for one in read if not one.is_right][:1]
    return DemoPart(
        summary=summary,
        headline=f"{fraction:.1%} of {unseen} unseen CAPTCHAs are read without an error.",
        title="Unseen CAPTCHAs",
        lead="",
        values={"CAPTCHAs read": f"{fraction:.1%}"},
        measures=[Measure("unseen CAPTCHAs of which every character is read correctly", fraction, None, unseen)],
        labels=[*right, *wrong],
        loss_plot=(Path(summary["run_dir"]) / LOSS_PLOT).read_bytes(),
    )
