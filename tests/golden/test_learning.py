"""Learning and scoring: the losses of three steps of each model, and the scores of known predictions, stay the same."""

import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest

import capt
from tests.golden.data import write_captchas, write_captions, write_images, write_network
from tests.golden.expected import EXPECTED
from trainer.metrics import score
from trainer.models.model_specs import MODELS

TINY: dict[str, dict[str, Any]] = {
    "soft_attention": {"embedding_dim": 12, "units": 16, "attention_dim": 10, "projection_dim": 14, "output_dim": 18},
    "hard_attention": {"embedding_dim": 12, "units": 16, "attention_dim": 10, "output_dim": 18},
    "transformer": {"num_layers": 2, "units": 16, "max_length": 12},
    "nic": {"embedding_dim": 12, "units": 16},
    "m_rnn": {"embedding_dim": 10, "embedding_dim_2": 16, "units": 16, "multimodal": 18},
    "init_inject": {"embedding_dim": 12, "units": 16, "image_bottleneck": 10, "logit_bottleneck": 14},
    "par_inject": {"embedding_dim": 12, "units": 16},
    "merge": {"embedding_dim": 12, "units": 16},
}
HYPOTHESES = {
    1: "a man in a red hat rides a horse",
    2: "two dogs run through the snow",
    3: "a cat sits on a table next to a lamp",
}
REFERENCES = {
    1: ["A man wearing a red hat is riding a horse.", "man on a horse", "a rider in a hat"],
    2: ["Two dogs are running through deep snow.", "dogs run in the snow", "two brown dogs play"],
    3: ["a cat is sitting on a table", "The cat sits beside the lamp.", "there is a cat on a wooden table"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of twelve images with captions, spatial and averaged features."""
    root = tmp_path_factory.mktemp("golden")
    images, network = write_images(root / "images", 12), write_network(root / "network.keras")
    annotations = write_captions(root / "captions.jsonl", 12)
    common: dict[str, Any] = {
        "store": str(root / "store"),
        "dataset_type": "jsonl",
        "annotations": [str(annotations)],
    }
    for pooling in ("none", "avg"):
        capt.prepare_features(
            images=[str(images)],
            extractor=f"custom:{network}",
            preprocess="unit",
            pooling=pooling,
            storage_dtype="float32",
            precision="float32",
            **common,
        )
    capt.prepare_captions(**common)
    return root / "store"


def losses(run: Path) -> dict[str, list[float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: [row[name] for row in rows] for name in ("loss", "val_loss")}


@pytest.mark.parametrize("model", MODELS)
def test_losses_of_three_steps_of_a_captioner(store: Path, tmp_path: Path, model: str) -> None:
    table = next(
        table for table in capt.open_store(store).feature_tables() if (len(table.shape) == 2) == MODELS[model].spatial
    )
    options = {**TINY[model], "batch_size": 8, "precision": "float32", "num_sample_captions": 0}
    capt.train_captioner(
        store=str(store),
        run_dir=str(tmp_path / "run"),
        model=model,
        feature_table=table.fingerprint,
        seed=3,
        epochs=3,
        steps_per_epoch=1,
        hyperparameters=options,
    )
    for name, values in losses(tmp_path / "run").items():
        assert values == pytest.approx(EXPECTED["losses"][model][name], rel=1e-4)


def test_losses_of_three_steps_of_the_recognizer(tmp_path: Path) -> None:
    images, labels = write_captchas(tmp_path, 12)
    capt.prepare_captcha(
        store=str(tmp_path / "store"),
        images=[str(images)],
        labels=str(labels),
        split_sizes="8,4,0",
        height=16,
        width=48,
    )
    options = {
        "filters": [8, 24],
        "blocks_per_stage": [0, 1],
        "units": 16,
        "charset": ascii_lowercase,
        "max_label_length": 4,
        "batch_size": 8,
        "precision": "float32",
    }
    capt.train_captcha(
        store=str(tmp_path / "store"),
        run_dir=str(tmp_path / "run"),
        seed=3,
        epochs=3,
        steps_per_epoch=1,
        hyperparameters=options,
    )
    for name, values in losses(tmp_path / "run").items():
        assert values == pytest.approx(EXPECTED["losses"]["recognizer"][name], rel=1e-4)


def test_scores_of_known_predictions() -> None:
    found = score(HYPOTHESES, REFERENCES)
    expected = EXPECTED["scores"]
    compared = {name: value for name, value in expected.items() if name not in found["skipped_metrics"]}
    assert {name: found[name] for name in compared} == pytest.approx(compared, rel=1e-9)
