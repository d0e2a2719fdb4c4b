"""Every dataset in its published layout, with its known failures, is prepared and trains a model."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import capt
from pipelines.datasets import DATASET_READERS, open_reader
from schemas.errors import CaptError, UsageError
from tests.pipelines.datasets.layouts import LAYOUTS, PHOTOS, Layout, csv, flickr8k

PIXELS = {"extractor": "pixels", "storage_dtype": "uint8", "height": 32, "width": 32}
NETWORK = {
    "extractor": "mobilenet_v3_small",
    "weights": "random:1",
    "storage_dtype": "float16",
    "height": None,
    "width": None,
}
TINY = {"units": 8, "embedding_dim": 8, "attention_dim": 8, "projection_dim": 8, "output_dim": 8, "batch_size": 2}
CAPTIONED = [kind for kind in LAYOUTS if kind != "folder"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all: their images are the same, so they are extracted once."""
    return str(tmp_path_factory.mktemp("datasets") / "store")


@pytest.fixture(scope="module")
def words(store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A vocabulary for all, for learning one takes longer than using it."""
    learned = captions(store, LAYOUTS["coco"](tmp_path_factory.mktemp("coco")), dataset_name="words")
    return str(learned["fingerprint"])


def features(store: str, layout: Layout, **options: Any) -> dict[str, Any]:
    given = {"annotations": layout.annotations, "max_failures": "100%", **PIXELS, **options}
    return capt.prepare_features(store=store, dataset_type=layout.kind, images=layout.images, **given)  # type: ignore[no-any-return]


def captions(store: str, layout: Layout, **options: Any) -> dict[str, Any]:
    given = {"annotations": layout.annotations, "max_failures": "100%", **options}
    return capt.prepare_captions(store=store, dataset_type=layout.kind, **given)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_dataset_is_prepared_and_each_failure_affects_one_record(
    kind: str, store: str, words: str, tmp_path: Path
) -> None:
    layout = LAYOUTS[kind](tmp_path)
    split = "own" if layout.splits else "1,0,0"
    seen = features(store, layout, dataset_name=kind, split_ratios=split)
    assert seen["ok"] + seen["cached"] == PHOTOS - 1
    assert seen["reasons"] == {"truncated": 1, **({"missing": 1} if layout.missing else {})}
    catalog = capt.open_store(store).dataset(kind).catalog()
    if layout.splits:
        found = catalog["split"].to_pylist()
        assert {split: found.count(split) for split in set(found)} == layout.splits
    if layout.captions:
        summary = captions(store, layout, dataset_name=kind, split_ratios=split, vocab_from=words)
        assert (summary["ok"], summary["failed"]) == (layout.captions, sum(layout.malformed.values()))
        assert (summary["repaired"], summary["reasons"]) == (layout.repaired, layout.malformed)
        rows = capt.open_store(store).caption_table(summary["fingerprint"]).captions()
        assert set(catalog["image_id"].to_pylist()) <= set(rows["image_id"].to_pylist())
        splits = dict(zip(catalog["image_id"].to_pylist(), catalog["split"].to_pylist(), strict=True))
        for row in rows.to_pylist():
            assert row["split"] == splits.get(row["image_id"], row["split"])


def test_a_folder_has_no_captions(tmp_path: Path) -> None:
    with pytest.raises(CaptError, match="--dataset-type: "):
        captions(str(tmp_path / "store"), LAYOUTS["folder"](tmp_path))


def test_the_report_names_the_line_and_too_many_failures_keep_the_good_records(
    store: str, words: str, tmp_path: Path
) -> None:
    layout = csv(tmp_path)
    with pytest.raises(CaptError, match=r"2 of 10 records failed \(1 too many columns, 1 unknown split\)") as caught:
        captions(store, layout, dataset_name="report", vocab_from=words, max_failures=None)
    figures = caught.value.summary
    assert figures is not None
    rows = [row for row in pq.read_table(figures["report"]).to_pylist() if row["status"] == "failed"]
    place = f"{tmp_path}/captions.csv"
    assert [(row["record"], row["stage"], row["reason"]) for row in rows] == [
        (f"{place}:10", "parse", "too many columns"),
        (f"{place}:11", "parse", "unknown split"),
    ]
    assert rows[1]["detail"].startswith(f"{place}:11: 'tarin' is none of train, val, test")
    assert capt.open_store(store).caption_table(figures["fingerprint"]).captions().num_rows == 8


def test_unreadable_lines_do_not_change_the_images_that_a_limit_selects(store: str, words: str, tmp_path: Path) -> None:
    layout = flickr8k(tmp_path)
    text = tmp_path / "Flickr8k_text" / "Flickr8k.token.txt"
    text.write_text("".join(f"{line}\nbad line {n}\n" for n, line in enumerate(text.read_text().splitlines())))
    limited = {
        "dataset_name": "limited",
        "annotations": [str(text)],
        "seed": 5,
        "limit_captions": 6,
        "split_ratios": "1,0,0",
    }
    seen = features(store, layout, **limited)
    summary = captions(store, layout, **limited, vocab_from=words)
    rows = capt.open_store(store).caption_table(summary["fingerprint"]).captions()
    assert len(set(rows["image_id"].to_pylist())) == seen["input"] == 3
    assert 0 < summary["reasons"]["no image#number"] < 14


def test_a_file_of_failed_records_only_names_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,caption\na\n,b\n,c\n")
    with pytest.raises(CaptError, match=r"there are no captions \(2 no image; 1 too few columns\)"):
        captions(str(tmp_path / "store"), Layout("csv", [], [str(tmp_path / "a.csv")], 0))


def test_an_unknown_dataset_type_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=", ".join(DATASET_READERS)):
        open_reader("cocoa", [])


@pytest.mark.slow
def test_no_real_caption_is_lost(real_data: Path, tmp_path: Path) -> None:
    text = str(real_data / "flickr8k-text" / "Flickr8k.token.txt")
    summary = captions(str(tmp_path / "store"), Layout("flickr8k", [], [text], 40_460), max_failures="0")
    assert (summary["input"], summary["ok"]) == (40_460, 40_460)
    assert summary["repaired"] == {"space for the tab": 3}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CAPTIONED)
def test_every_dataset_trains(kind: str, store: str, words: str, tmp_path: Path) -> None:
    layout = LAYOUTS[kind](tmp_path)
    split = "own" if layout.splits else "1,0,0"
    seen = features(store, layout, dataset_name=kind, split_ratios=split, **NETWORK)
    summary = captions(store, layout, dataset_name=kind, split_ratios=split, vocab_from=words)
    given = {
        "dataset": [kind],
        "feature_table": seen["fingerprint"],
        "caption_table": summary["fingerprint"],
        "epochs": 1,
        "steps_per_epoch": 1,
    }
    run = tmp_path / "run"
    capt.train_captioner(store=store, run_dir=str(run), **given, hyperparameters=TINY)
    photo = next(path for path in sorted(tmp_path.rglob("*.jpg")) if path.stat().st_size)
    assert isinstance(capt.load_run(run).caption(photo).text, str)
