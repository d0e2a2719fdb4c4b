"""A model learns from imported features as from extracted ones, and says what it cannot do."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.store import Store, open_store
from schemas.errors import UsageError
from trainer.reports.plots import draw_attention_maps
from trainer.runs.run import load_run

REFUSED = "the run was trained on imported features, and capt does not know the extractor"


@dataclass(frozen=True)
class Imported:
    store: Store
    images: Path
    run: Path
    result: dict[str, Any]


def train(store: Store, run: Path, sizes: dict[str, Any], **options: Any) -> dict[str, Any]:
    hyperparameters = {**sizes, "batch_size": 16, **options}
    result: dict[str, Any] = capt.train_captioner(
        store=store.path, run_dir=run, dataset="squares", epochs=1, hyperparameters=hyperparameters
    )
    return result


@pytest.fixture(scope="module")
def imported(tmp_path_factory, squares, shown, store, tiny_sizes):
    """The pictures of `store`, with the rows of its table as one file per image."""
    root = tmp_path_factory.mktemp("imported")
    for name in ("images", "arrays"):
        (root / name).mkdir()
    table = store.feature_tables()[0]
    for picture in shown:
        (root / "images" / f"{picture.image_id}.png").write_bytes(picture.data)
        np.save(root / "arrays" / f"{picture.image_id}.png.npy", table.get(picture.key))
    capt.prepare_features(
        store=root / "store", dataset_type="folder", images=root / "images", from_arrays=root / "arrays"
    )
    copy = open_store(root / "store")
    squares.add_captions(copy, shown)
    squares.add_dataset(copy, shown, folder=root / "images")
    result = train(copy, root / "run", tiny_sizes["soft_attention"])
    return Imported(copy, root / "images", root / "run", result)


def test_the_batches_are_those_of_the_extracted_table(store, imported):
    one, other = (capt.keras_dataset(path, dataset="squares", seed=3) for path in (store.path, imported.store.path))
    for ((features, tokens), targets), ((same, same_tokens), same_targets) in zip(one, other, strict=True):
        np.testing.assert_array_equal(features, same)
        np.testing.assert_array_equal(tokens, same_tokens)
        np.testing.assert_array_equal(targets, same_targets)


def test_training_has_the_loss_of_the_extracted_table(store, imported, tmp_path, tiny_sizes):
    train(store, tmp_path / "run", tiny_sizes["soft_attention"])
    one, other = (json.loads((run / "metrics.jsonl").read_text()) for run in (tmp_path / "run", imported.run))
    assert one["loss"] == other["loss"]
    assert one["val_loss"] == other["val_loss"]


def test_a_run_is_evaluated_on_the_images_of_its_dataset(imported):
    scores = capt.evaluate(runs=imported.run, split="val", num_examples=2)
    assert 0 <= scores["bleu_1"] <= 1


def test_features_of_the_same_kind_are_captioned_from_python(imported, shown):
    run = load_run(imported.run)
    features = imported.store.feature_tables()[0].get_many([shown[0].key])
    (caption,) = run.caption_features(features)
    assert caption.attention.shape == (len(caption.words), 16)
    assert not caption.words or draw_attention_maps(shown[0].data, caption, run.resizer)


def test_other_images_are_refused_with_the_reason(imported, tmp_path):
    picture = imported.images / "000.png"
    with pytest.raises(UsageError, match=REFUSED) as raised:
        capt.caption(run=imported.run, images=[picture])
    assert "Use `capt evaluate` on the images of its dataset" in str(raised.value)
    with pytest.raises(UsageError, match=REFUSED):
        capt.export(run=imported.run, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_sample_images_are_refused_before_training(imported, tmp_path, tiny_sizes):
    options = {"sample_images": [str(imported.images / "000.png")], "num_sample_captions": 0}
    with pytest.raises(UsageError, match=f"sample_images: {REFUSED}"):
        train(imported.store, tmp_path / "run", tiny_sizes["soft_attention"], **options)
