"""CAPTCHAs are stored as pixels by content hash, with labels, and splits that never change."""

import io
import json
import logging
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import capt
from features.text.charset import normalize_label
from schemas.errors import CorruptFileError, TooManyFailuresError, UsageError
from schemas.manifests import LabelFormat
from tests.conftest import zip_of

COUNT = 14
SIZE = {"height": 16, "width": 32}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen CAPTCHAs, twelve of them labelled."""
    out = tmp_path_factory.mktemp("made") / "out"
    capt.synth_captcha(out=out, num_images=COUNT, seed=5)
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the published folder."""
    shutil.copytree(made / "words_captcha", tmp_path / "words_captcha")
    return tmp_path / "words_captcha"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def prepare(store: Path, images: Path, **options: Any) -> dict[str, Any]:
    given = {"labels": str(images), **SIZE, **options}
    result: dict[str, Any] = capt.prepare_captcha(store=str(store), images=[str(images)], **given)
    assert sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"]
    return result


def splits(store: Path, name: str = "captcha") -> dict[str, str]:
    catalog = capt.open_store(store).dataset(name).catalog()
    return dict(zip(catalog["image_id"].to_pylist(), catalog["split"].to_pylist(), strict=True))


def labels(store: Path, name: str = "captcha") -> dict[str, str]:
    table = capt.open_store(store).dataset(name).labels()
    return dict(zip(table["image_id"].to_pylist(), table["word"].to_pylist(), strict=True))


def read_labels(path: Path) -> dict[str, str]:
    return dict(line.split() for line in path.read_text().splitlines())


def tables(store: Path) -> dict[str, bytes]:
    files = [path for path in (store / "features").rglob("*") if path.is_file()]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def test_every_captcha_is_stored_at_one_size_with_its_label_and_split(store: Path, made: Path) -> None:
    folder = made / "words_captcha"
    result = prepare(store, folder)
    assert (result["input"], result["ok"], result["unannotated"]) == (COUNT, COUNT, 0)
    assert labels(store) == read_labels(folder / "spec_train_val.txt")
    ids = [f"a{number}" for number in range(COUNT)]
    assert [splits(store)[image_id] for image_id in ids] == ["train"] * 10 + ["val"] * 2 + ["test"] * 2
    opened = capt.open_store(store)
    for image_id in ids:
        row = opened.feature_table(result["fingerprint"]).get(opened.dataset("captcha").get(image_id)["key"])
        picture = Image.open(folder / f"{image_id}.png").resize((32, 16), Image.Resampling.BILINEAR)
        assert row.dtype == np.uint8
        assert np.array_equal(row, np.asarray(picture))


def test_the_table_equals_that_of_the_extractor_pixels(store: Path, made: Path) -> None:
    first = prepare(store, made / "words_captcha")
    other = capt.prepare_features(
        store=str(store), dataset_type="folder", images=[str(made / "words_captcha")], extractor="pixels", **SIZE
    )
    assert other["fingerprint"] == first["fingerprint"]
    assert (other["cached"], other["ok"]) == (COUNT, 0)
    assert capt.open_store(store).dataset("folder").labels().num_rows == 0


def test_a_zip_and_a_directory_give_the_same_bytes(tmp_path: Path, made: Path) -> None:
    archive = zip_of(made / "words_captcha", tmp_path / "words_captcha.zip")
    prepare(tmp_path / "one", made / "words_captcha")
    prepare(tmp_path / "other", archive)
    assert tables(tmp_path / "one") == tables(tmp_path / "other")
    assert labels(tmp_path / "one") == labels(tmp_path / "other")
    assert splits(tmp_path / "one") == splits(tmp_path / "other")


def test_a_second_run_extracts_nothing(store: Path, made: Path) -> None:
    prepare(store, made / "words_captcha")
    again = prepare(store, made / "words_captcha")
    assert (again["cached"], again["shards"], again["bytes"]) == (COUNT, 0, 0)


def test_captchas_that_leave_the_dataset_are_counted(store: Path, folder: Path) -> None:
    prepare(store, folder)
    for number in (3, 12):
        (folder / f"a{number}.png").unlink()
    assert prepare(store, folder, max_failures="100%")["removed"] == 2
    assert len(splits(store)) == COUNT - 2


def test_a_dry_run_changes_nothing(store: Path, made: Path) -> None:
    result = prepare(store, made / "words_captcha", dry_run=True)
    assert (result["dry_run"], result["misses"]) == (True, COUNT)
    assert not store.exists()


def test_the_label_null_is_a_label(store: Path, folder: Path) -> None:
    lines = (folder / "spec_train_val.txt").read_text().splitlines()
    (folder / "spec_train_val.txt").write_text("\n".join(["a0 null", *lines[1:]]))
    prepare(store, folder)
    assert labels(store)["a0"] == "null"


def test_unusable_labels_and_images_are_failed_rows_with_their_reasons(store: Path, folder: Path) -> None:
    lines = (folder / "spec_train_val.txt").read_text().splitlines()
    lines[1], lines[3] = "a1 two words", "a3"
    (folder / "spec_train_val.txt").write_text("\n".join([*lines[:5], *lines[6:], "a77 thus", "nonsense"]))
    (folder / "a2.png").write_bytes((folder / "a2.png").read_bytes()[:9000])
    (folder / "a4.png").unlink()
    (folder / "cover.png").write_bytes((folder / "a0.png").read_bytes())
    with pytest.raises(TooManyFailuresError) as caught:
        prepare(store, folder)
    figures = caught.value.summary
    assert figures is not None
    rows = {row["record"]: row for row in pq.read_table(figures["report"]).to_pylist() if row["status"] == "failed"}
    assert {record.rsplit("/", 1)[-1]: (row["stage"], row["reason"]) for record, row in rows.items()} == {
        "a1": ("parse", "separator"),
        "a2": ("decode", "truncated"),
        "a3": ("parse", "no word"),
        "a4": ("find", "missing"),
        "a5": ("parse", "no label"),
        "a77": ("find", "missing"),
        "cover.png": ("parse", "name"),
        "spec_train_val.txt:13": ("parse", "no id"),
    }
    assert rows["a1"]["detail"].endswith(
        "spec_train_val.txt:2: expected an ID, one space or tab, and a label: 'a1 two words'"
    )
    good = {"a0", *(f"a{number}" for number in range(6, COUNT))}
    assert set(splits(store)) == good
    assert labels(store) == {i: word for i, word in read_labels(folder.parent / "truth.txt").items() if i in good}


@pytest.fixture(autouse=True)
def truth(made: Path, tmp_path: Path) -> None:
    """The labels, beside the copy of the directory."""
    shutil.copy(made / "words_captcha" / "spec_train_val.txt", tmp_path / "truth.txt")


def test_an_assigned_split_never_changes_and_splits_of_added_images_are_hashed(
    store: Path, folder: Path, tmp_path: Path
) -> None:
    prepare(store, folder)
    before = splits(store)
    capt.synth_captcha(out=tmp_path / "more", num_images=84, seed=6)
    for path in (tmp_path / "more" / "words_captcha").glob("a*.png"):
        number = int(path.stem[1:]) + COUNT
        shutil.copy(path, folder / f"a{number}.png")
    result = prepare(store, folder)
    assert (result["cached"], result["ok"]) == (COUNT, 84)
    after = splits(store)
    assert {image_id: after[image_id] for image_id in before} == before
    added = [after[f"a{number}"] for number in range(COUNT, COUNT + 84)]
    shares = {split: added.count(split) / 84 for split in ("train", "val", "test")}
    assert 0.55 < shares["train"] < 0.85
    assert min(shares["val"], shares["test"]) > 0.05


def test_split_sizes_assign_splits_by_image_number(store: Path, made: Path) -> None:
    prepare(store, made / "words_captcha", split_sizes="8,4,1")
    found = [splits(store)[f"a{number}"] for number in range(COUNT)]
    assert found == ["train"] * 8 + ["val"] * 4 + ["test", "unused"]
    with pytest.raises(UsageError, match="the splits need 15 images, and there are 14"):
        prepare(store, made / "words_captcha", split_sizes="8,4,3", dataset_name="other")


def test_compression_changes_no_value(store: Path, made: Path) -> None:
    plain = prepare(store, made / "words_captcha")
    packed = prepare(store, made / "words_captcha", compression="zstd", format="parquet")
    opened = capt.open_store(store)
    keys = np.array([list(key) for key in opened.dataset("captcha").catalog()["key"].to_pylist()], np.uint8)
    one, other = (opened.feature_table(result["fingerprint"]).get_many(keys) for result in (plain, packed))
    assert np.array_equal(one, other)


def test_corrupt_labels_are_found_refused_and_repaired(store: Path, made: Path) -> None:
    prepare(store, made / "words_captcha")
    before = labels(store)
    (path,) = store.glob("datasets/*/*/labels.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError):
        labels(store)
    with pytest.raises(CorruptFileError) as caught:
        capt.store_verify(store=str(store))
    assert caught.value.summary is not None
    assert caught.value.summary["damaged"] == [path.relative_to(store).as_posix()]
    prepare(store, made / "words_captcha")
    assert labels(store) == before
    assert capt.store_verify(store=str(store))["damaged"] == []


def test_replaced_labels_are_deleted_by_garbage_collection(store: Path, folder: Path) -> None:
    prepare(store, folder)
    text = (folder / "spec_train_val.txt").read_text()
    (folder / "spec_train_val.txt").write_text("".join(text.splitlines(keepends=True)[:6]))
    prepare(store, folder)
    assert len(labels(store)) == 6
    assert len(list(store.glob("datasets/*/*/labels.parquet"))) == 2
    collected = capt.store_gc(store=str(store), older_than="0s")
    assert [path.rsplit("/", 1)[-1] for path in collected["paths"] if "datasets/captcha" in path] == ["labels.parquet"]
    assert len(labels(store)) == 6
    capt.store_compact(store=str(store))
    assert len(labels(store)) == 6
    capt.store_drop(store=str(store), dataset="captcha")
    capt.store_gc(store=str(store), older_than="0s")
    assert list(store.glob("datasets/*/*/*.parquet")) == [
        path for path in store.glob("datasets/*/*/*.parquet") if "reports" in path.parts
    ]


def test_images_and_labels_are_required(store: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images: a value is required"):
        capt.prepare_captcha(store=str(store), images=[], labels=str(made / "truth.txt"))
    with pytest.raises(UsageError, match="--labels"):
        prepare(store, made / "words_captcha", labels=str(tmp_path / "none.txt"))
    assert not store.exists()


def test_a_label_file_may_contain_all_labels(store: Path, made: Path) -> None:
    prepare(store, made / "words_captcha", labels=str(made / "truth.txt"))
    assert labels(store) == read_labels(made / "truth.txt")
    assert len(labels(store)) == COUNT


def test_images_of_any_mode_are_stored_as_rgb(store: Path, folder: Path) -> None:
    file = io.BytesIO()
    Image.open(folder / "a0.png").convert("P").save(file, "PNG")
    (folder / "a0.png").write_bytes(file.getvalue())
    assert prepare(store, folder)["ok"] == COUNT


def test_the_dataset_records_the_separator_and_line_ends_of_its_label_file(store, folder):
    path = folder / "spec_train_val.txt"
    prepare(store, folder)
    known, before = labels(store), capt.open_store(store).dataset("captcha")
    assert before.label_format is None
    assert "label_format" not in before.manifest.facts.model_dump()
    path.write_bytes(path.read_bytes().replace(b" ", b"\t").replace(b"\n", b"\r\n"))
    result = prepare(store, folder)
    after = capt.open_store(store).dataset("captcha")
    assert (result["failed"], labels(store)) == (0, known)
    assert after.label_format == LabelFormat(separator="\t", line_end="\r\n")
    assert after.digest == before.digest


# === Other layouts ===


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Twelve small images of several formats and modes, named by their labels, two of them in a folder."""
    directory = tmp_path / "words"
    (directory / "more").mkdir(parents=True)
    formats = [("RGB", "png"), ("P", "png"), ("L", "jpg"), ("RGBA", "webp"), ("LA", "png"), ("1", "bmp"), ("P", "gif")]
    names = ["007", "null", "NaN", "1e5", "Été", "שלום", "A b", "x7", "Q", "7766", "more/x7", "more/yy"]
    for number, name in enumerate(names):
        mode, suffix = formats[number % len(formats)]
        size = (30 + number, 10 + number)
        Image.new("RGB", size, (20 * number, 99, 250 - number)).convert(mode).save(directory / f"{name}.{suffix}")
    return directory


def test_images_that_are_named_by_their_labels_need_no_option(store: Path, words: Path) -> None:
    result = capt.prepare_captcha(store=store, images=words)
    assert (result["input"], result["ok"], result["failed"]) == (12, 12, 0)
    assert labels(store) == {
        path.relative_to(words).as_posix(): path.stem for path in words.rglob("*") if path.is_file()
    }
    assert sum(result["labels"].values()) == result["splits"]["hashed"] == 12
    assert sum(result["characters"]["7"].values()) == 5
    assert set(result["label_lengths"]) == {"1", "2", "3", "4"}
    assert set(result["unseen_characters"]) <= set(result["characters"])


def test_a_zip_and_other_label_layouts_give_the_same_labels_and_splits(
    store: Path, words: Path, tmp_path: Path
) -> None:
    capt.prepare_captcha(store=store, images=words)
    named = labels(store)
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", words)
    capt.prepare_captcha(store=store, images=archive, dataset_name="zip")
    table = tmp_path / "table.csv"
    table.write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in named.items()))
    capt.prepare_captcha(store=store, images=words, labels=table, dataset_name="table")
    assert labels(store, "table") == named
    assert splits(store, "table") == splits(store)
    assert (labels(store, "zip"), splits(store, "zip")) == (named, splits(store))


def test_case_is_folded_and_other_characters_fail(store: Path, words: Path) -> None:
    result = capt.prepare_captcha(
        store=store, images=words, labels="names", fold_case=True, charset="0123456789xyéte", max_failures="100%"
    )
    assert result["reasons"] == {"not in --charset": 5}
    assert labels(store)["Été.png"] == "été"
    assert normalize_label("E\u0301TE", fold_case=capt.open_store(store).dataset("captcha").fold_case) == "éte"
    capt.prepare_captcha(store=store, images=words, labels="names")
    assert normalize_label("E\u0301TE", fold_case=capt.open_store(store).dataset("captcha").fold_case) == "ÉTE"


def test_a_name_in_an_archive_whose_encoding_is_unknown_is_no_label(store: Path, tmp_path: Path) -> None:
    image = write_texts(tmp_path / "images", ["ab"], (40, 32), (200, 180, 90)) / "ab.png"
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="cp866") as archive:
        for name in ("cd.png", "да.png"):
            archive.add(image, name)
    result = capt.prepare_captcha(store=store, images=tmp_path / "a.tar", dry_run=True)
    assert (result["failed"], result["reasons"], list(result["label_lengths"])) == (1, {"name is not UTF-8": 1}, ["2"])


def test_splits_are_those_of_the_column_or_of_the_options(store: Path, words: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in words.glob("*.*"))
    table = tmp_path / "table.jsonl"
    rows = [{"file": name, "text": "x", "part": "val" if number < 3 else "train"} for number, name in enumerate(names)]
    table.write_text("\n".join(map(json.dumps, rows)))
    given = {"store": store, "images": words, "labels": table}
    assert capt.prepare_captcha(**given, split_column="part")["splits"]["hashed"] == 0
    assert list(splits(store).values()) == ["val"] * 3 + ["train"] * 7
    assert capt.prepare_captcha(**given, dataset_name="sizes", split_sizes="1,2,3")["unannotated"] == 2
    assert list(splits(store, "sizes").values()) == ["train", *["val"] * 2, *["test"] * 3, *["unused"] * 4]
    capt.prepare_captcha(**given, dataset_name="ratios", split_ratios="0,1")
    assert set(splits(store, "ratios").values()) == {"val"}


def test_published_captchas_can_be_divided_by_the_hash(store: Path, made: Path) -> None:
    result = prepare(store, made / "words_captcha", split_ratios="0.5,0.25,0.25")
    assert result["splits"]["hashed"] == COUNT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"the images have a label file: labels\.csv\. Add --labels .*/labels\.csv, or --labels names"),
        ({"labels": "names", "image_column": "x"}, "--image-column: the option does not apply: the labels are in the"),
        ({"labels": "{}/labels.csv", "label_pattern": "(?P<label>.)"}, "--label-pattern: the option does not apply"),
        ({"labels": "{}/labels.csv", "label_column": "word"}, "no column 'word'"),
        ({"labels": "names", "split_sizes": "1,1,1", "split_ratios": "0.5,0.5"}, "not valid with --split-sizes"),
        ({"labels": "names", "charset": "a\t"}, "--charset: U\\+0009 is not a character of labels"),
    ],
)
def test_options_that_do_not_fit_the_labels_are_refused(
    store: Path, words: Path, options: dict[str, str], message: str
) -> None:
    (words / "labels.csv").write_text("image,label\nQ.png,Q\n")
    given = {name: value.format(words) if name == "labels" else value for name, value in options.items()}
    with pytest.raises(UsageError, match=message):
        capt.prepare_captcha(store=store, images=words, **given)


def test_numbered_images_need_a_label_file(store: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"have a label file: spec_train_val\.txt"):
        capt.prepare_captcha(store=store, images=folder)
    (folder / "spec_train_val.txt").unlink()
    with pytest.raises(UsageError, match=r"--labels: the 14 images are numbered, so their names are not labels"):
        capt.prepare_captcha(store=store, images=folder)


# === Sizes ===


def write_texts(directory: Path, names: list[str], size: tuple[int, int], color: tuple[int, int, int]) -> Path:
    """Writes images with a black bar on a color, named by their labels."""
    directory.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        image = Image.new("RGB", size, color)
        image.paste((0, 0, 0), (size[0] // 3, size[1] // 4, size[0] // 3 + 9, size[1] // 2 + number))
        image.save(directory / f"{name}.png")
    return directory


def size_of(result: dict[str, Any]) -> tuple[int, int, str]:
    size = result["input_size"]
    return size["height"], size["width"], size["resize_mode"]


def test_the_size_fits_the_images_and_stays_when_others_are_added(store: Path, tmp_path: Path) -> None:
    images = write_texts(tmp_path / "images", ["ab", "cd", "efg"], (200, 50), (200, 180, 90))
    first = capt.prepare_captcha(store=store, images=images)
    assert size_of(first) == (48, 192, "pad-border")
    assert capt.open_store(store).dataset("captcha").input_size.model_dump() == first["input_size"]
    write_texts(images, ["h", "ij", "kl", "mn", "op"], (400, 200), (10, 200, 30))
    again = capt.prepare_captcha(store=store, images=images)
    assert (again["cached"], again["ok"], again["fingerprint"]) == (3, 5, first["fingerprint"])
    assert again["input_size"]["reason"] != first["input_size"]["reason"]
    opened = capt.open_store(store)
    row = opened.feature_table(first["fingerprint"]).get(opened.dataset("captcha").get("h.png")["key"])
    assert (row[:, [0, 47, 144, 191]] == (10, 200, 30)).all()
    assert row[:, 72:120].min() < 10
    assert capt.prepare_captcha(store=store, images=images, dataset_name="new")["fingerprint"] != first["fingerprint"]


def test_options_determine_the_size_and_the_first_size_stays_the_default(store: Path, tmp_path: Path) -> None:
    images = write_texts(tmp_path / "images", ["ab", "cd", "efg"], (200, 50), (200, 180, 90))
    given: dict[str, Any] = {"store": store, "images": images}
    assert size_of(capt.prepare_captcha(**given, height=64)) == (64, 256, "pad-border")
    assert size_of(capt.prepare_captcha(**given, width=160)) == (40, 160, "pad-border")
    assert size_of(capt.prepare_captcha(**given, height=40, width=88)) == (40, 88, "pad-border")
    assert size_of(capt.prepare_captcha(**given)) == (64, 256, "pad-border")
    assert size_of(capt.prepare_captcha(**given, resize_mode="stretch")) == (64, 256, "stretch")


@pytest.mark.parametrize(
    ("side", "pixels"), [("height", "512×2048, with 1,048,576"), ("width", "128×512, with 65,536")]
)
def test_one_stated_side_makes_no_larger_images_than_a_chosen_size(
    store: Path, tmp_path: Path, side: str, pixels: str
) -> None:
    images = write_texts(tmp_path / "images", ["ab", "cd", "efg"], (200, 50), (200, 180, 90))
    given: dict[str, Any] = {"store": store, "images": images, "dry_run": True}
    with pytest.raises(UsageError, match=f"--{side}: .* {pixels} pixels each; .* 25,600"):
        capt.prepare_captcha(**given, **{side: 512})
    assert size_of(capt.prepare_captcha(**given, height=512, width=2048)) == (512, 2048, "pad-border")


def test_one_stated_side_of_the_first_size_keeps_the_other(store: Path, tmp_path: Path) -> None:
    images = write_texts(tmp_path / "images", ["ab", "cd", "efg"], (200, 50), (200, 180, 90))
    given: dict[str, Any] = {"store": store, "images": images}
    first = capt.prepare_captcha(**given, height=64)
    write_texts(images, ["h", "ij", "kl", "mn", "op"], (400, 200), (10, 200, 30))
    for stated in ({"height": 64}, {"width": 256}, {}):
        again = capt.prepare_captcha(**given, **stated)
        assert (size_of(again), again["fingerprint"]) == (size_of(first), first["fingerprint"])
    assert size_of(capt.prepare_captcha(**given, height=32, dry_run=True)) != size_of(first)


def test_a_label_that_alone_sets_the_width_is_named(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [f"{number}ab" for number in range(20)]  # so that one more label is less than 5% of the labels
    images = write_texts(tmp_path / "images", labels, (200, 50), (200, 180, 90))
    given: dict[str, Any] = {"store": store, "images": images, "dry_run": True}
    with caplog.at_level(logging.WARNING):
        assert size_of(capt.prepare_captcha(**given)) == (48, 192, "pad-border")
        assert "time steps" not in caplog.text
        write_texts(images, ["l" * 40], (200, 50), (200, 180, 90))
        assert size_of(capt.prepare_captcha(**given)) == (48, 320, "pad-border")
    warned = [record.getMessage() for record in caplog.records if "time steps" in record.getMessage()]
    assert len(warned) == 1
    assert all(part in warned[0] for part in ("l" * 40 + ".png", "79", "320", "192", "15,360", "9,216"))


def test_a_stated_height_makes_no_larger_images_for_the_longest_label_either(store: Path, tmp_path: Path) -> None:
    labels = [f"{number}ab" for number in range(20)]  # so that one more label is less than 5% of the labels
    images = write_texts(tmp_path / "images", [*labels, "l" * 64], (200, 50), (200, 180, 90))
    given: dict[str, Any] = {"store": store, "images": images, "dry_run": True}
    assert size_of(capt.prepare_captcha(**given, height=48)) == (48, 512, "pad-border")
    with pytest.raises(UsageError, match=r"--height: .* 56×512, with 28,672 pixels each; .* 25,600"):
        capt.prepare_captcha(**given, height=56)


@pytest.mark.parametrize("stated", [{"width": 88}, {"height": 40, "width": 88}])
def test_a_stated_width_that_is_too_small_for_ctc_is_told_before_training(
    store: Path, tmp_path: Path, stated: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    images = write_texts(tmp_path / "images", ["ab", "cd", "l" * 12], (200, 50), (200, 180, 90))
    with caplog.at_level(logging.WARNING):
        result = capt.prepare_captcha(store=store, images=images, dry_run=True, **stated)
        assert result["input_size"]["width"] == 88
        capt.prepare_captcha(store=store, images=images, dry_run=True, width=96)
    warned = [record.getMessage() for record in caplog.records if "time steps" in record.getMessage()]
    assert len(warned) == 1
    assert all(part in warned[0] for part in ("l" * 12 + ".png", "23", "88", "--width 96"))


def test_the_published_layout_has_its_own_size(store: Path, made: Path) -> None:
    options = {"store": store, "images": made / "words_captcha", "labels": made / "truth.txt", "dry_run": True}
    assert size_of(capt.prepare_captcha(**options)) == (80, 160, "stretch")
    assert size_of(capt.prepare_captcha(**options, height=40)) == (40, 160, "stretch")


def test_unreadable_images_do_not_determine_the_size(store: Path, tmp_path: Path) -> None:
    images = write_texts(tmp_path / "images", ["ab"], (200, 50), (200, 180, 90))
    for name in ("cd", "ef"):
        (images / f"{name}.png").write_bytes((images / "ab.png").read_bytes()[:60])
    assert size_of(capt.prepare_captcha(store=store, images=images, max_failures="100%")) == (48, 192, "pad-border")
    (images / "ab.png").rename(tmp_path / "ab.png")
    given: dict[str, Any] = {"store": store, "images": images, "dataset_name": "none", "max_failures": "100%"}
    assert capt.prepare_captcha(**given)["failed"] == 2
    default = capt.prepare_captcha(**given, height=80, dry_run=True)["input_size"]["reason"]
    stated = capt.prepare_captcha(**given, height=80, width=160, dry_run=True)["input_size"]["reason"]
    assert default != stated == "the options"
    (tmp_path / "ab.png").rename(images / "ab.png")
    assert size_of(capt.prepare_captcha(**given)) == (48, 192, "pad-border")
