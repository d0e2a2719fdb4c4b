"""Recipes are complete and valid: those of the package, and those of one's own."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import capt
from schemas.errors import UsageError
from tests.workflows.reproduction.files import MERGE, expect, write_data, write_recipe
from trainer.evaluation.published import read_published
from workflows.reproduction.recipe_files import CAPTIONERS, find_recipe, list_names

NAMES = list_names()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def dry_run(recipe: str | Path) -> dict[str, Any]:
    return dict(capt.reproduce(recipe=str(recipe), dry_run=True))


def write(path: Path, entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(entries))
    return path


def test_every_captioner_has_a_recipe_per_dataset_objective_and_extractor() -> None:
    forms = ("flickr8k-{}", "flickr8k-{}-cider_d", "flickr8k-{}-inception_v3", "coco-karpathy-{}")
    expected = {form.format(model) for model in CAPTIONERS for form in forms}
    patches = {f"flickr8k-soft_attention-{preset}" for preset in ("siglip2", "dinov2")}
    assert set(NAMES) >= expected | patches | {"captcha-quick", "captcha-default"}
    assert not [name for name in NAMES if "MODEL" in name]


@pytest.mark.parametrize("name", NAMES)
def test_the_dry_run_of_a_recipe_prints_a_complete_recipe(name: str, tmp_path: Path) -> None:
    result = dry_run(name)
    assert (result["recipe"], result["split"], result["dry_run"]) == (name, "val", True)
    settings = result["settings"]
    copied = write(tmp_path / f"{name}.yaml", settings)
    assert dry_run(copied)["settings"] == settings
    assert not {"base", "published"} & settings.keys()
    if "train" in settings:
        assert {**settings["train"], **settings["stages"][0]}["batch_size"], "defaults are written, too"
    recipe = find_recipe(name).recipe
    assert recipe.task != "captcha" or "precision" in recipe.train, "the default depends on the machine"


@pytest.mark.parametrize("name", NAMES)
def test_a_band_states_where_it_is_from(name: str) -> None:
    recipe = find_recipe(name).recipe
    assert recipe.minutes
    assert recipe.gigabytes
    if recipe.expected and recipe.expected.measured:
        assert f"capt reproduce {name} " in recipe.expected.measured.command
    else:
        assert recipe.not_run


def test_photographs_of_flickr8k_are_pinned_one_by_one() -> None:
    path = find_recipe("flickr8k-merge").checksums
    assert path
    lines = path.read_text().splitlines()
    assert len(lines) == 7000
    assert len({line.split()[1] for line in lines}) == 7000
    assert all(re.fullmatch(r"[0-9a-f]{64}  \d+_[0-9a-f]+\.jpg", line) for line in lines)


def test_bands_of_coco_are_those_of_the_cited_paper() -> None:
    expected = find_recipe("coco-karpathy-soft_attention").recipe.expected
    (row,) = (row for row in read_published()["coco"] if row.model == "soft attention")
    assert expected
    assert row.bleu_4
    low, high = expected.scores["bleu_4"]
    assert low < row.bleu_4 / 100 < high
    assert "Xu et al. 2015" in expected.derivation
    assert expected.measured is None
    assert find_recipe("coco-karpathy-merge").recipe.expected is None


def test_the_list_tells_data_cost_and_origin_of_the_scores() -> None:
    listed = {one["recipe"]: one for one in capt.reproduce(list=True)["recipes"]}
    assert list(listed) == NAMES
    one = listed["coco-karpathy-nic"]
    assert (one["model"], one["task"]) == ("nic", "captioner")
    assert "COCO 2014" in one["data"]
    assert one["minutes"] > 0
    assert one["gigabytes"] > 20
    assert set(one["expected"]["scores"]) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4"}
    assert one["not_run"]


def test_a_recipe_of_its_own_changes_keys_of_another(tmp_path: Path) -> None:
    entries = {"base": "flickr8k-merge", "description": "One epoch.", "train": {"epochs": 1}, "not_run": "A trial."}
    settings = dry_run(write(tmp_path / "short.yaml", entries))["settings"]
    original = dry_run("flickr8k-merge")["settings"]
    assert settings["train"] == {**original["train"], "epochs": 1}
    assert (settings["data"], settings["features"]) == (original["data"], original["features"])


def test_a_recipe_inherits_no_bands(tmp_path: Path, data: Path) -> None:
    write_recipe(tmp_path / "tiny.yaml", data, expected=expect(cider_d=[0.0, 1.0]))
    other = write(tmp_path / "other.yaml", {"base": "tiny.yaml", "description": "Another.", "not_run": "A trial."})
    assert "expected" in dry_run(tmp_path / "tiny.yaml")["settings"]
    assert "expected" not in dry_run(other)["settings"]


def test_later_stages_have_the_settings_of_the_first_except_their_own(tmp_path: Path, data: Path) -> None:
    stages = [{"epochs": 3}, {"learning_rate": 1e-4}]
    recipe = find_recipe(str(write_recipe(tmp_path / "tiny.yaml", data, stages=stages))).recipe
    first, second = (recipe.training_task.settings(stage) for stage in recipe.list_stages())
    assert (first["epochs"], second["epochs"]) == (3, 2)
    assert {name for name in first if first[name] != second[name]} == {"epochs", "learning_rate"}


def test_equal_first_stages_are_those_of_the_base(tmp_path: Path, data: Path) -> None:
    write_recipe(tmp_path / "tiny.yaml", data)
    entries = {"base": "tiny.yaml", "description": "Another.", "not_run": "A trial."}
    second, third = {"learning_rate": 1e-4}, {"epochs": 1}
    write(tmp_path / "two.yaml", {**entries, "stages": [{}, second]})
    write(tmp_path / "three.yaml", {**entries, "base": "two.yaml", "stages": [{}, second, third]})
    write(tmp_path / "beams.yaml", {**entries, "evaluate": {"num_beams": 2}})
    write(tmp_path / "keys.yaml", {"features": {"pooling": "none"}})
    write_recipe(tmp_path / "whole.yaml", data, base="keys.yaml")
    write(tmp_path / "wide.yaml", {**entries, "train": {"units": 9}, "stages": [{}, second]})
    write(tmp_path / "other.yaml", {**entries, "features": {"pooling": "none"}, "stages": [{}, second]})

    def trained_by(name: str, stages: int) -> list[str]:
        return [find_recipe(str(tmp_path / f"{name}.yaml")).trained_by(stage + 1) for stage in range(stages)]

    assert trained_by("tiny", 1) == ["tiny"]
    assert trained_by("two", 2) == ["tiny", "two"]
    assert trained_by("three", 3) == ["tiny", "two", "three"]
    assert trained_by("beams", 1) == ["beams"]
    assert trained_by("whole", 1) == ["whole"]
    assert trained_by("wide", 2) == ["wide", "wide"]
    assert trained_by("other", 2) == ["other", "other"]


def test_an_ensemble_shows_the_settings_of_its_members(tmp_path: Path, data: Path) -> None:
    write_recipe(tmp_path / "tiny.yaml", data)
    entries = {"description": "Two.", "ensemble": ["tiny.yaml"], "seeds": [0, 1], "not_run": "A trial."}
    result = dry_run(write(tmp_path / "two.yaml", entries))
    assert result["settings"]["ensemble"] == ["tiny.yaml"]
    assert result["members"]["tiny"]["train"]["units"] == MERGE["units"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"modle": "merge"}, r"tiny\.yaml: unknown key 'modle'\. Use one of description, "),
        ({"data": {"title": "x", "option": {}}}, r"unknown key 'data\.option'"),
        ({"data": None}, r"the key 'data' is missing"),
        (
            {"data": {"title": "x", "options": {"dataset_type": "flickr8k", "images": "x"}}},
            "images is set by `capt repro",
        ),
        ({"data": {"title": "x", "options": {"min_count": 5}}}, r"data\.options: unknown option 'min_count'"),
        (
            {"data": {"title": "x", "options": {"dataset_type": "flickr8k", "dataset_name": "../../x"}}},
            r"data\.options: invalid dataset name '\.\./\.\./x'\. Use letters",
        ),
        ({"features": {"extracter": "vgg16"}}, r"features: .*unknown option 'extracter'"),
        ({"features": {"extractor": "custom:a.keras"}}, "extractor_sha256 is missing"),
        ({"extractor_sha256": "ab"}, "extractor_sha256: String should match"),
        ({"captions": {"min_count": "many"}}, r"captions: .*--min-count: expected"),
        ({"captcha": {"height": 8}}, "the task captioner has no captcha tables"),
        ({"train": {**MERGE, "epoks": 3}}, "stage 1: unknown option 'epoks'"),
        ({"train": {**MERGE, "seed": 3}}, "stage 1: seed is not an option of a stage. Move the option to `seeds:`"),
        ({"stages": [{}, {"warm_start_from": "run"}]}, "stage 2: unknown option 'warm_start_from'"),
        ({"evaluate": {"split": "test"}}, "evaluate: split is set by `capt reproduce`"),
        ({"evaluate": {"num_beam": 3}}, "unknown option 'num_beam'"),
        ({"expected": expect(cider=[0.1, 0.2])}, r"expected\.scores: unknown score 'cider'. Use one of cider_d, "),
        ({"expected": expect(cider_d=[0.3, 0.2])}, "the band of cider_d begins above its end"),
        ({"not_run": None}, r"expected one of expected\.measured and not_run"),
        ({"published": {"dataset": "imagenet"}}, "published: invalid value"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": [0, 1 << 32]}, r"seeds\.1: Input should be less than 4294967296"),
        ({"ensemble": ["other"]}, "an ensemble has no data of its own"),
    ],
)
def test_a_wrong_key_or_value_is_one_line(tmp_path: Path, data: Path, changed: dict[str, Any], message: str) -> None:
    path = write_recipe(tmp_path / "tiny.yaml", data, **changed)
    with pytest.raises(UsageError, match=message) as caught:
        dry_run(path)
    assert str(path) in str(caught.value)


def test_an_unknown_name_lists_similar_ones() -> None:
    with pytest.raises(UsageError, match=r"there is no recipe 'flickr8k-soft_atention'.*flickr8k-soft_attention"):
        dry_run("flickr8k-soft_atention")
    with pytest.raises(UsageError, match="--list"):
        dry_run("flickr8k-MODEL-inception_v3")
    for path in ("base/flickr8k", "../recipes/captcha-quick"):
        with pytest.raises(UsageError, match=f"there is no recipe '{path}'"):
            dry_run(path)
    with pytest.raises(UsageError, match=r"--seed.*4294967296"):
        capt.reproduce(recipe="captcha-quick", seed=1 << 32, dry_run=True)
    with pytest.raises(UsageError, match="RECIPE: a value is required"):
        capt.reproduce(work_dir="w")


def test_recipes_that_name_each_other_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", {"base": "two.yaml"})
    write(tmp_path / "two.yaml", {"base": "one.yaml"})
    with pytest.raises(UsageError, match="more than 10 recipes are based on each other"):
        dry_run(one)
    voting = {"description": "x", "ensemble": ["three.yaml"], "not_run": "x"}
    with pytest.raises(UsageError, match=r"the member .*three\.yaml is an ensemble"):
        dry_run(write(tmp_path / "three.yaml", voting))


def test_members_of_an_ensemble_have_equal_data(tmp_path: Path, data: Path) -> None:
    write_recipe(tmp_path / "tiny.yaml", data)
    write_recipe(tmp_path / "other.yaml", data, captions={"min_count": 2})
    voting = {"description": "x", "ensemble": ["tiny.yaml", "other.yaml"], "not_run": "x"}
    with pytest.raises(UsageError, match="other has other data or captions than tiny"):
        dry_run(write(tmp_path / "two.yaml", voting))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "captcha", "ensemble": ["captcha-quick"]}, r"--ensemble: recognizers do not use this option"),
        ({"evaluate": {"teacher_forced": 3}}, r"--teacher-forced: an ensemble does not use this option"),
        ({"evaluate": {"attention": 3}}, r"--attention: an ensemble does not use this option"),
    ],
)
def test_an_ensemble_is_evaluated_as_such(tmp_path: Path, data: Path, changed: dict[str, Any], message: str) -> None:
    write_recipe(tmp_path / "tiny.yaml", data)
    voting = {"description": "x", "ensemble": ["tiny.yaml"], "not_run": "x", **changed}
    with pytest.raises(UsageError, match=message):
        dry_run(write(tmp_path / "two.yaml", voting))
