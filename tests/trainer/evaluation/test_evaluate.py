import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import capt
from schemas.errors import CaptError, StoreError, UsageError
from tests.trainer.programs import needs_java
from tests.workflows.test_example_pages import Page
from trainer.evaluation.caption_evaluation import select_examples, to_coco_results
from trainer.evaluation.evaluate import parse_examples, print_evaluation, select_random
from trainer.metrics import score
from trainer.metrics.caption_metrics import METRICS
from trainer.runs.run import load_run

SIZES = {"units": 48, "embedding_dim": 32, "attention_dim": 32, "projection_dim": 32, "output_dim": 48}
OPTIONS = {**SIZES, "batch_size": 32, "learning_rate": 0.01, "num_sample_captions": 0}
ABSENT = {name for name in METRICS if name != "meteor"}


def train(store, run, epochs=8, **options):
    capt.train_captioner(store=store.path, run_dir=run, epochs=epochs, hyperparameters=OPTIONS, **options)
    return run


@pytest.fixture(scope="module")
def photos(squares):
    """Pictures whose ids are COCO's, without leading zeros; every captioner is scored on the last quarter, `val`."""
    return [replace(picture, image_id=str(int(picture.image_id) + 1)) for picture in squares.pictures(64)]


@pytest.fixture(scope="module")
def root(squares, photos, tmp_path_factory):
    """A folder with a store of pictures that lie on the disk, and two runs, one of which mistakes red for blue."""
    root = tmp_path_factory.mktemp("evaluated")
    squares.write_pictures(root / "images", photos)
    store = squares.create_store(root / "store")
    squares.add_features(store, photos)
    squares.add_captions(store, photos)
    squares.add_dataset(store, photos, folder=root / "images")
    train(store, root / "good")
    shutil.copytree(root / "good", root / "poor")
    words = (root / "poor" / "vocabulary.txt").read_text()
    (root / "poor" / "vocabulary.txt").write_text(words.replace("red", "?").replace("blue", "red").replace("?", "blue"))
    return root


@pytest.fixture(scope="module")
def wide(squares, tmp_path_factory):
    """A run on two datasets, of whose 16 captioned images in `val` three have no features and one no image."""
    root, shown = tmp_path_factory.mktemp("wide"), squares.pictures(64)
    store = squares.create_store(root / "store")
    squares.add_features(store, shown[:60])
    for name, own in (("squares", shown[::2]), ("others", shown[1::2])):
        squares.add_captions(store, own, name)
        squares.add_dataset(store, [picture for picture in own if picture is not shown[63]], name)
    return train(store, root / "run", epochs=1, dataset=["squares", "others"])


@pytest.fixture
def held(photos):
    return [picture for picture in photos if picture.split == "val"]


@pytest.fixture(scope="module")
def evaluated(root):
    """What was found of a copy of the good run without Java, and the files that it left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(root / "nothing"))
        return capt.evaluate(runs=shutil.copytree(root / "good", root / "scored"), num_examples=2)


def test_a_run_is_scored_on_all_references_as_published(evaluated, root, held):
    run = load_run(root / "good")
    predictions = {picture.image_id: run.caption(picture.data).text for picture in held}
    references = {picture.image_id: picture.captions for picture in held}
    expected = score(predictions, references)
    assert {name: evaluated[name] for name in expected} == {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in expected.items()
    }
    assert evaluated["images"] == len(held)
    assert evaluated["references"] == sum(len(picture.captions) for picture in held)
    assert evaluated["cider_d"] > 1


def test_without_a_test_split_val_is_scored_and_reported(evaluated):
    assert evaluated["split"] == "val"
    assert f"{evaluated['run_dir']}: the split test has no references. Evaluated on val instead." in evaluated["notes"]


def test_a_missing_meteor_is_reported_with_its_reason(evaluated, capsys):
    assert any(note.startswith("METEOR is skipped: there is no java") for note in evaluated["notes"])
    assert any("plain tokenizer" in note for note in evaluated["notes"])
    print_evaluation(evaluated)
    shown = capsys.readouterr().out
    assert "METEOR is skipped: there is no java" in shown
    assert "plain tokenizer" in shown
    assert f"{100 * evaluated['cider_d']:.1f}" in shown


def test_the_metrics_of_one_run_are_printed_by_name_and_written_as_json(evaluated):
    assert set(evaluated) >= ABSENT
    assert evaluated["runs"][0]["bleu_4"] == evaluated["bleu_4"]
    assert json.loads(json.dumps(evaluated))["runs"] == json.loads(json.dumps(evaluated["runs"]))
    low, high = evaluated["intervals"]["cider_d"]
    assert low <= evaluated["cider_d"] <= high


def test_results_are_in_cocos_format(evaluated, held):
    (path,) = evaluated["results_paths"]
    results = json.loads(Path(path).read_text())
    assert [set(one) for one in results] == [{"image_id", "caption"}] * len(held)
    assert [one["image_id"] for one in results] == sorted(int(picture.image_id) for picture in held)


def test_every_image_has_a_line_of_its_own_scores(evaluated, held):
    heads, *lines = (Path(evaluated["scores_path"]).parent / "images.tsv").read_text().splitlines()
    rows = [dict(zip(heads.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert {row["image"] for row in rows} == {picture.image_id for picture in held}
    assert sum(float(row["cider_d"]) for row in rows) / len(rows) == pytest.approx(evaluated["cider_d"], rel=1e-4)


def test_scores_contain_their_settings_and_no_time_or_path(evaluated, root, tmp_path):
    written = Path(evaluated["scores_path"]).read_text()
    found = json.loads(written)
    assert found["decoding"]["num_beams"] == 1
    assert found["tokenizer"] == "plain"
    assert found["cider_d"] == evaluated["cider_d"]
    assert str(root) not in written
    again = capt.evaluate(runs=shutil.copytree(root / "good", tmp_path / "again"), num_examples=0)
    assert Path(again["scores_path"]).read_text() == written


def test_decoding_options_reach_the_captions(root, tmp_path):
    run = Path(shutil.copytree(root / "good", tmp_path / "run"))
    short = capt.evaluate(runs=run, num_examples=0, num_beams=2, max_new_tokens=2)
    assert (short["decoding"]["num_beams"], short["decoding"]["max_new_tokens"]) == (2, 2)
    captions = [one["caption"] for one in json.loads(Path(short["results_paths"][0]).read_text())]
    assert max(len(caption.split()) for caption in captions) == 2
    assert sorted(path.name for path in Path(short["scores_path"]).parent.iterdir()) == [
        "images.tsv",
        "results.json",
        "scores.json",
    ]
    with pytest.raises(UsageError, match="--num-beams"):
        capt.evaluate(runs=run, num_beams=0)


def test_runs_are_shown_side_by_side(root, capsys):
    result = capt.evaluate(runs=[root / "good", root / "poor"], num_examples=0)
    good, poor = result["runs"]
    assert good["data_digest"] == poor["data_digest"]
    assert good["cider_d"] > poor["cider_d"]
    assert "cider_d" not in result
    assert not [note for note in result["notes"] if "different" in note]
    print_evaluation(result)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("good", "poor", "BLEU-4", "CIDEr-D"))


def test_runs_that_were_scored_on_different_images_are_reported_as_not_comparable(root, wide):
    notes = capt.evaluate(runs=[root / "good", wide], num_examples=0)["notes"]
    assert "The runs were evaluated on different data. Their metrics are not comparable." in notes


def test_images_without_features_are_counted(wide):
    result = capt.evaluate(runs=wide, num_examples=0)
    assert (result["images"], result["without_features"], result["without_image"]) == (12, 3, 1)
    assert f"{wide}: skipped images without features: 3." in result["notes"]
    assert f"{wide}: skipped captioned images that are not in the dataset: 1." in result["notes"]


def test_several_datasets_are_scored_together_and_each_has_its_results(wide):
    result = capt.evaluate(runs=wide, num_examples=6)
    counts = {Path(path).name: len(json.loads(Path(path).read_text())) for path in result["results_paths"]}
    assert counts == {"results-squares.json": 6, "results-others.json": 6}
    page = Page(Path(result["page_path"]).read_text())
    assert "others/0" in page.text
    assert "squares/0" in page.text
    assert "Images that cannot be read any more: 12" in page.text
    assert page.pictures == []


def test_a_run_is_evaluated_on_another_dataset_without_replacing_its_own_results(wide):
    own = capt.evaluate(runs=wide, num_examples=0)
    one = capt.evaluate(runs=wide, num_examples=0, dataset="others")
    assert (own["images"], one["images"]) == (12, 6)
    assert one["evaluated_datasets"] == ["others"]
    assert "evaluated_datasets" not in own
    assert Path(one["scores_path"]).parent == Path(own["scores_path"]).parents[1] / "on-others" / "val"
    assert json.loads(Path(own["scores_path"]).read_text())["images"] == 12
    assert [Path(path).name for path in one["results_paths"]] == ["results.json"]
    rows = (Path(one["images_path"])).read_text().splitlines()[1:]
    assert not any("/" in row.split("\t")[0] for row in rows)
    again = capt.evaluate(runs=wide, num_examples=0, dataset=["others", "squares"])
    assert again["scores_path"] == own["scores_path"]
    with pytest.raises(StoreError, match="circles"):
        capt.evaluate(runs=wide, num_examples=0, dataset="circles")


def test_the_page_shows_images_with_maps_and_scores(evaluated):
    text = Path(evaluated["page_path"]).read_text()
    page, wrong_words = Page(text), text.count("<h3")
    assert len(page.pictures) == 8 + 2 * wrong_words
    assert "METEOR is skipped" in page.text
    assert f"CIDEr-D {100 * evaluated['cider_d']:.1f}" in page.text


def test_the_store_is_that_of_the_training_or_of_the_option(root, tmp_path):
    run = Path(shutil.copytree(root / "good", tmp_path / "run"))
    store = Path(shutil.copytree(root / "store", tmp_path / "moved"))
    (run / "store.txt").write_text(f"{tmp_path}/gone\n")
    with pytest.raises(UsageError, match=r"is not at .*/gone any more.*--store"):
        capt.evaluate(runs=run)
    (run / "store.txt").unlink()
    with pytest.raises(UsageError, match=r"does not record its store.*--store"):
        capt.evaluate(runs=run)
    assert capt.evaluate(runs=run, store=store, num_examples=0)["images"] == 16


def test_what_cannot_be_evaluated_is_named(squares, root, tmp_path):
    with pytest.raises(UsageError, match="RUN: a value is required"):
        capt.evaluate(runs=[])
    with pytest.raises(UsageError, match="--split: "):
        capt.evaluate(runs=root / "good", split="dev")
    with pytest.raises(CaptError, match="the split unused has no captions"):
        capt.evaluate(runs=root / "good", split="unused")
    with pytest.raises(StoreError, match="does not contain a run"):
        capt.evaluate(runs=tmp_path)
    empty = squares.create_store(tmp_path / "empty")
    with pytest.raises(StoreError, match="no dataset 'squares'"):
        capt.evaluate(runs=root / "good", store=empty.path)


def test_ids_are_ints_only_where_all_of_them_are():
    assert to_coco_results({"10": "b", "9": "a"}) == [{"image_id": 9, "caption": "a"}, {"image_id": 10, "caption": "b"}]
    assert [one["image_id"] for one in to_coco_results({"9": "a", "009": "b"})] == ["009", "9"]


class Ranked:
    """The scores of four images: from the best to the worst 2, 1, 3, 0."""

    per_image = {"cider_d": np.array([0, 2, 2, 1]), "bleu_4": np.array([0.5, 0.1, 0.2, 0.9])}  # noqa: RUF012


@pytest.mark.parametrize(
    ("counts", "best", "worst"),
    [((1, 1), [2], [0]), ((2, 2), [2, 1], [0, 3]), ((9, 9), [2, 1], [0, 3]), ((9, 1), [2, 1, 3], [0])],
)
def test_no_caption_is_both_among_the_best_and_the_worst(counts, best, worst):
    examples = dict(zip(("best", "worst"), counts, strict=True))
    assert select_examples(Ranked, examples) == {"best": best, "worst": worst}


def test_one_kind_of_examples_can_contain_all_images():
    assert select_examples(Ranked, {"worst": 9}) == {"worst": [0, 3, 1, 2]}
    assert select_examples(Ranked, {"best": 9}) == {"best": [2, 1, 3, 0]}


def test_random_examples_are_a_seeded_sample_of_all_images_that_a_larger_number_extends():
    few, more = select_random(100, 10, seed=3), select_random(100, 20, seed=3)
    assert few == more[:10]
    assert len(set(more)) == 20
    assert few != select_random(100, 10, seed=4)
    assert sorted(select_examples(Ranked, {"best": 4, "random": 9}, seed=3)["random"]) == [0, 1, 2, 3]


def test_kinds_of_examples_have_the_default_number_or_their_own():
    assert list(parse_examples("random:10, worst,best:0", 6).items()) == [("random", 10), ("worst", 6), ("best", 0)]


@pytest.mark.parametrize(
    ("examples", "problem"),
    [
        ("best,median", "'median' is not a kind of examples"),
        ("best,", "'' is not a kind of examples"),
        ("best:2,best", "best is named twice"),
        ("random:many", "'many' is not a number of examples"),
        ("random:-1", "'-1' is not a number of examples"),
    ],
)
def test_unknown_examples_are_wrong_usage(root, examples, problem):
    with pytest.raises(UsageError, match=rf"--examples: {problem}.*best,worst,random:10"):
        capt.evaluate(runs=root / "good", examples=examples)


def test_the_page_has_the_examples_of_the_option_in_their_order(root, tmp_path):
    run = shutil.copytree(root / "good", tmp_path / "run")
    result = capt.evaluate(runs=run, examples="random:5,worst", num_examples=1, seed=2)
    text = Path(result["page_path"]).read_text()
    page = Page(text)
    assert page.text.index("Random captions") < page.text.index("Worst captions")
    assert "Best captions" not in page.text
    examples = text.partition("Wrong words in the captions")[0]
    assert examples.count("<img") == 2 * 6, "the image and the attention maps of each"
    assert capt.evaluate(runs=run, examples="worst:0")["page_path"] is None
    assert not Path(result["page_path"]).exists()


# === COCO's own tools ===


def annotations(held, path):
    data = {
        "info": {},
        "licenses": [],
        "images": [{"id": int(picture.image_id), "file_name": f"{picture.image_id}.png"} for picture in held],
        "annotations": [
            {"id": 10 * int(picture.image_id) + number, "image_id": int(picture.image_id), "caption": caption}
            for picture in held
            for number, caption in enumerate(picture.captions)
        ],
    }
    path.write_text(json.dumps(data))
    return str(path)


def test_cocos_tools_load_the_results(evaluated, held, tmp_path):
    from pycocotools.coco import COCO

    loaded = COCO(annotations(held, tmp_path / "captions.json")).loadRes(evaluated["results_paths"][0])
    assert sorted(loaded.getImgIds()) == sorted(int(picture.image_id) for picture in held)


class NoSpice:
    """In place of SPICE, which downloads when it is constructed."""

    def compute_score(self, gts, res):
        return 0.0, [0.0] * len(gts)

    def method(self):
        return "SPICE"


@needs_java
@pytest.mark.slow
def test_cocos_tools_find_the_same_scores(root, held, with_meteor, monkeypatch, tmp_path):
    from pycocoevalcap import eval as cocoeval
    from pycocotools.coco import COCO

    found = capt.evaluate(runs=root / "good", num_examples=0)
    coco = COCO(annotations(held, tmp_path / "captions.json"))
    monkeypatch.setattr(cocoeval, "Spice", NoSpice)
    theirs = cocoeval.COCOEvalCap(coco, coco.loadRes(found["results_paths"][0]))
    theirs.evaluate()
    names = {"Bleu_1": "bleu_1", "Bleu_4": "bleu_4", "METEOR": "meteor", "ROUGE_L": "rouge_l", "CIDEr": "cider_d"}
    assert {ours: found[ours] for ours in names.values()} == {
        ours: pytest.approx(theirs.eval[name], rel=1e-9) for name, ours in names.items()
    }


def test_wrong_words_link_to_their_use_in_the_captions_of_the_store(root, tmp_path):
    run = shutil.copytree(root / "poor", tmp_path / "run")
    page = Path(capt.evaluate(runs=run)["page_path"]).read_text()
    links = set(re.findall(r'class="wrong" href="#(word-\w+)"', page))
    assert links
    assert links == set(re.findall(r'<h3 id="(word-\w+)">', page))
    assert "Wrong words in the captions of the store" in page


def test_slices_and_published_scores_are_in_the_result_the_tables_and_the_page(root, tmp_path, capsys):
    run = shutil.copytree(root / "good", tmp_path / "run")
    found = capt.evaluate(runs=run, slice=["colours", "trees=tree"], beside="coco")
    assert json.loads(Path(found["scores_path"]).read_text())["slices"] == json.loads(json.dumps(found["slices"]))
    assert found["slices"]["colours"]["images"] == found["images"]
    assert found["slices"]["colours"]["cider_d"] == pytest.approx(found["cider_d"])
    assert found["published"]["rows"][0]["bleu_4"] == round(100 * found["bleu_4"], 2)
    assert f"{run}: no image matches the slice trees." in found["notes"]
    page = Path(found["page_path"]).read_text()
    print_evaluation(found)
    for text in (page, capsys.readouterr().out):
        assert "scores × 100 by subject, with 95% intervals" in text
        assert "published scores of coco" in text
        assert "without brevity penalty" in text


def test_a_dataset_without_published_scores_is_wrong_usage(root):
    with pytest.raises(UsageError, match="there is no published table of squares"):
        capt.evaluate(runs=root / "good", beside="published")
