"""`capt reproduce` runs a recipe end to end, resumes, does nothing twice, and compares the scores with their bands."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import capt
from features.io.locks import LockedError, hold_lock
from schemas.errors import CaptError, ExitCode, StoreError, UsageError
from schemas.strict_json import parse_json
from tests.commands import CommandServer
from tests.conftest import noise_image
from tests.trainer.programs import DIES, MakeJava
from tests.trainer.programs import make_java as make_java  # a fixture
from tests.workflows.experiments.files import NETWORK
from tests.workflows.reproduction.files import MERGE, expect, given, write_data, write_recipe
from trainer.runs.directory import METRICS
from workflows.reproduction.records import LOCK
from workflows.reproduction.run import print_reproduction

pytestmark = pytest.mark.usefixtures("without_java")

WIDE, IMPOSSIBLE = expect(bleu_1=[0.0, 1.0], cider_d=[0.0, 10.0]), expect(bleu_1=[0.0, 1.0], cider_d=[9.0, 10.0])


@pytest.fixture(scope="module")
def without_java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Disables METEOR, which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("nothing")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work") / "W"


@pytest.fixture(scope="module")
def first(work: Path, data: Path, without_java: None) -> dict[str, Any]:
    """The first run of a recipe in a new work directory."""
    recipe = write_recipe(work.with_name("tiny.yaml"), data, expected=WIDE)
    return dict(capt.reproduce(recipe=str(recipe), work_dir=str(work), **given(data)))


def again(first: dict[str, Any], data: Path, **changed: Any) -> dict[str, Any]:
    """Runs the recipe in the same work directory with other entries."""
    work = Path(first["work_dir"])
    recipe = write_recipe(work.with_name("tiny.yaml"), data, **{"expected": WIDE, **changed})
    return dict(capt.reproduce(recipe=str(recipe), work_dir=str(work), **given(data)))


def times(root: Path) -> dict[str, int]:
    """Returns the times of the last change of shards, checkpoints and evaluations."""
    kept = [path for path in root.rglob("*") if path.suffix in (".tfrecord", ".parquet", ".h5", ".tsv")]
    return {str(path): path.stat().st_mtime_ns for path in kept if "datasets" not in path.parts}


def test_a_recipe_is_prepared_trained_scored_and_passes(first: dict[str, Any], work: Path) -> None:
    assert (first["recipe"], first["split"], first["passed"]) == ("tiny", "val", True)
    assert {"bleu_1", "bleu_4", "rouge_l", "cider_d"} <= first["scores"].keys()
    assert all(0 <= score <= 1 for name, score in first["scores"].items() if name != "cider_d")
    assert first["bands"]["bleu_1"] == {"score": first["scores"]["bleu_1"], "low": 0.0, "high": 1.0, "passed": True}
    assert first["data"]["images"] == {"expected": 13, "different": 0, "unlisted": 3}
    assert first["deviations"] == []
    (run,) = first["runs"]
    assert (run["seed"], run["epochs"], run["images"], run["scores"]) == (0, 2, 3, first["scores"])
    assert run["run_dir"] == str(work / "runs" / "tiny" / "seed0" / "stage1")
    assert json.loads((work / "results" / "tiny-val.json").read_text())["result"] == first


def test_the_page_has_verdict_bands_runs_data_and_settings(first: dict[str, Any], work: Path) -> None:
    page = (work / "tiny-val.html").read_text(encoding="utf-8")
    assert first["page_path"] == str(work / "tiny-val.html")
    for text in ("Passed: 2 of 2 scores", "✓ pass", "Bands: a guess.", "13 of 13 images have the SHA-256", "16 images"):
        assert text in page
    assert "embedding_dim: 8" in page
    for link in ("report.html", "evaluation/val/predictions.html"):
        assert f'href="runs/tiny/seed0/stage1/{link}"' in page
        assert (work / "runs/tiny/seed0/stage1" / link).exists()


def test_the_same_command_does_nothing_twice(first: dict[str, Any], data: Path, work: Path) -> None:
    before = times(work)
    second = again(first, data)
    assert times(work) == before
    assert {**second, "seconds": 0} == {**first, "seconds": 0}


def test_a_score_outside_its_band_fails_with_the_same_result(first: dict[str, Any], data: Path) -> None:
    with pytest.raises(
        CaptError, match=r"^tiny: 1 of 2 scores are outside their bands: cider_d .* not in 9\.0000"
    ) as caught:
        again(first, data, expected=IMPOSSIBLE)
    assert caught.value.exit_code == ExitCode.FAILED
    assert caught.value.summary
    assert caught.value.summary["passed"] is False
    assert caught.value.summary["scores"] == first["scores"]
    assert "✗ fail" in Path(first["page_path"]).read_text(encoding="utf-8")


def test_without_bands_there_is_no_verdict(
    first: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = again(first, data, expected=None)
    assert (result["passed"], result["verdict"]) == (None, "No verdict. The recipe has no bands.")
    print_reproduction(result)
    assert "No verdict." in capsys.readouterr().out


def test_another_decoding_is_evaluated_and_not_trained_again(first: dict[str, Any], data: Path, work: Path) -> None:
    checkpoints = work / "runs"
    before = {path: changed for path, changed in times(checkpoints).items() if path.endswith(".h5")}
    result = again(first, data, evaluate={"num_examples": 0, "num_beams": 2})
    assert {path: changed for path, changed in times(checkpoints).items() if path.endswith(".h5")} == before
    evaluated = json.loads((work / "evaluations" / "tiny-seed0-val.json").read_text())["evaluated"]
    assert evaluated["decoding"]["num_beams"] == 2
    assert result["passed"] is True


def test_other_settings_need_another_work_directory(first: dict[str, Any], data: Path) -> None:
    with pytest.raises(StoreError, match=r"contains another run: .*Choose another --work-dir, or delete"):
        again(first, data, train={**MERGE, "units": 16})


@pytest.mark.parametrize("changed", [{"epochs": 1}, {"early_stopping_patience": 1}])
def test_a_longer_run_is_not_taken_for_that_of_the_recipe(
    first: dict[str, Any], data: Path, changed: dict[str, Any]
) -> None:
    message = rf"contains a longer run: {next(iter(changed))}: expected at most 1, got .*Choose another --work-dir, or"
    with pytest.raises(StoreError, match=message):
        again(first, data, train={**MERGE, **changed})


@pytest.mark.slow
def test_a_run_is_evaluated_again_if_its_scores_are_gone_or_java_is_new(
    first: dict[str, Any], data: Path, work: Path, make_java: MakeJava, monkeypatch: pytest.MonkeyPatch
) -> None:
    def skipped() -> str:
        evaluated = json.loads((work / "evaluations" / "tiny-seed0-val.json").read_text())["evaluated"]
        return str(evaluated["skipped_metrics"]["meteor"])

    again(first, data)
    scores = work / "runs/tiny/seed0/stage1/evaluation/val/scores.json"
    scores.unlink()
    again(first, data)
    assert scores.exists()
    assert "no java on the path" in skipped()
    java = str(make_java(DIES))
    monkeypatch.setattr(shutil, "which", lambda name: java)
    again(first, data)
    assert "no memory left" in skipped()


@pytest.mark.slow
def test_a_run_that_is_continued_is_evaluated_anew(first: dict[str, Any], data: Path, tmp_path: Path) -> None:
    copy = {"work_dir": str(shutil.copytree(first["work_dir"], tmp_path / "W"))}

    def identity() -> str:
        return str(json.loads((tmp_path / "W/evaluations/tiny-seed0-val.json").read_text())["identity"])

    again(copy, data)
    before = identity()
    assert again(copy, data, train={**MERGE, "epochs": 3})["runs"][0]["epochs"] == 3
    assert identity() != before


def test_scores_on_test_are_reported_without_a_verdict(first: dict[str, Any], data: Path) -> None:
    work = Path(first["work_dir"])
    recipe = write_recipe(work.with_name("tiny.yaml"), data, expected=IMPOSSIBLE)
    lists = given(data, "train", "dev", "test")
    result = capt.reproduce(recipe=str(recipe), work_dir=str(work), split="test", **lists)
    assert (result["split"], result["passed"]) == ("test", None)
    assert result["verdict"] == "No verdict. The bands are those of val."
    assert {band["passed"] for band in result["bands"].values()} == {None}
    assert result["runs"][0]["run_dir"] == first["runs"][0]["run_dir"]
    assert Path(result["page_path"]).name == "tiny-test.html"


@pytest.mark.slow
def test_other_images_and_another_seed_are_scored_without_a_verdict(first: dict[str, Any], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    features = {**NETWORK, "pooling": "avg", "max_failures": "20%"}
    recipe = write_recipe(tmp_path / "tiny.yaml", data, expected=IMPOSSIBLE, features=features)
    noise_image(99).save(data / "photos" / "3.jpg")
    (data / "photos" / "11.jpg").write_bytes(b"not an image")
    result = capt.reproduce(recipe=str(recipe), work_dir=str(tmp_path / "W"), seed=5, **given(data))
    assert result["passed"] is None
    assert {band["passed"] for band in result["bands"].values()} == {None}
    assert result["runs"][0]["images"] == 2
    assert result["deviations"] == [
        "2 of 13 images differ from those of the recipe: their SHA-256 is another one.",
        "val: skipped records without features: 2.",
        "val: skipped captioned images that are not in the dataset: 1.",
        "The seed is 5, and those of the recipe are 0.",
    ]
    assert Path(result["page_path"]).name == "tiny-seed5-val.html"


def test_a_work_directory_has_one_user_at_a_time(first: dict[str, Any], data: Path, work: Path) -> None:
    with hold_lock(work / LOCK, "reproducing here"), pytest.raises(LockedError):
        again(first, data)


@pytest.mark.slow
def test_stages_seeds_and_ensembles_share_one_work_directory(first: dict[str, Any], data: Path, work: Path) -> None:
    stages = [{}, {"learning_rate": 1e-4}]
    write_recipe(work.with_name("staged.yaml"), data, stages=stages, seeds=[0, 1])
    result = capt.reproduce(recipe=str(work.with_name("staged.yaml")), work_dir=str(work), **given(data))
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    assert [Path(run["run_dir"]).name for run in result["runs"]] == ["stage2", "stage2"]
    each = [run["scores"]["bleu_1"] for run in result["runs"]]
    assert result["scores"]["bleu_1"] == pytest.approx(sum(each) / 2)
    started = [json.loads((work / f"runs/staged/seed1/stage{stage}/run.json").read_text()) for stage in (1, 2)]
    assert [bool(one.get("warm_start")) for one in started] == [False, True]

    longer = {"base": "staged.yaml", "description": "Longer.", "stages": [{}, {"learning_rate": 2e-4}], "seeds": 1}
    work.with_name("longer.yaml").write_text(yaml.safe_dump({**longer, "not_run": "A test."}))
    before = times(work / "runs/staged")
    result = capt.reproduce(recipe=str(work.with_name("longer.yaml")), work_dir=str(work), **given(data))
    assert result["runs"][0]["run_dir"] == str(work / "runs/longer/seed1/stage2")
    assert not (work / "runs/longer/seed1/stage1").exists()
    assert times(work / "runs/staged") == before

    voting = {"description": "Votes.", "ensemble": ["tiny.yaml", "staged.yaml"], "seeds": 0, "not_run": "A test."}
    write_recipe(work.with_name("tiny.yaml"), data, expected=WIDE)
    work.with_name("voting.yaml").write_text(yaml.safe_dump(voting))
    before = {path: changed for path, changed in times(work).items() if path.endswith(".h5")}
    result = capt.reproduce(recipe=str(work.with_name("voting.yaml")), work_dir=str(work), **given(data))
    assert {path: changed for path, changed in times(work).items() if path.endswith(".h5")} == before
    assert result["ensemble"] is True
    assert [run["recipe"] for run in result["runs"]] == ["tiny", "staged"]
    assert "scores" not in result["runs"][0]
    assert result["scores"]["bleu_1"] >= 0


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_scores(tmp_path: Path, data: Path, commands: CommandServer) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data, train={**MERGE, "epochs": 6, "save_steps": 1}, expected=WIDE)
    names = [word for path in given(data)["annotations"] for word in ("--annotations", path)]

    def command(work: Path) -> list[str]:
        words = ["reproduce", recipe, "--work-dir", work, "--images", data / "photos", *names, "--json"]
        return list(map(str, words))

    environment = {"PATH": str(tmp_path)}
    whole = commands.capt(*command(tmp_path / "whole"), environment=environment)
    assert whole.returncode == 0, whole.stderr
    work = tmp_path / "killed"
    run = work / "runs/tiny/seed0/stage1"
    # In the preparation, in the training, and in the evaluation.
    for is_reached in (
        (work / "store").exists,
        lambda: (run / METRICS).exists() and (run / METRICS).read_text().count("\n") >= 2,
        (run / "evaluation").exists,
    ):
        process = commands.start(command(work), environment=environment)
        while process.poll() is None and not is_reached():
            time.sleep(0.02)
        process.kill()
        process.wait()
    resumed = commands.capt(*command(work), environment=environment)
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = (parse_json(done.stdout.splitlines()[-1].encode()) for done in (resumed, whole))
    assert ours["scores"] == theirs["scores"]
    assert ours["passed"] is True


@pytest.mark.slow
def test_recipes_generate_their_data(tmp_path: Path) -> None:
    synth = {"command": "captcha", "options": {"num_images": 70, "seed": 3}}
    quick = {"profile": "quick", "epochs": 1, "filters": [8, 8], "blocks_per_stage": [0, 0], "precision": "float32"}
    entries = {
        "description": "CAPTCHAs.",
        "task": "captcha",
        "data": {"title": "70 CAPTCHAs", "synth": synth},
        "train": quick,
        "not_run": "A test.",
    }
    path = tmp_path / "captchas.yaml"
    path.write_text(yaml.safe_dump(entries))
    for split in ("val", "test"):
        result = capt.reproduce(recipe=str(path), work_dir=str(tmp_path / "W"), split=split)
        assert (result["split"], result["data"]["origin"], result["deviations"]) == (split, "generated", [])
        assert 0 <= result["scores"]["exact_match"] <= 1


@pytest.mark.slow
def test_generated_data_without_the_split_point_to_the_recipe(tmp_path: Path) -> None:
    entries = {
        "description": "Scenes.",
        "data": {
            "title": "12 scenes",
            "options": {"dataset_type": "coco", "limit_images": "train=4,val=1,test=0"},
            "synth": {"command": "scenes", "options": {"num_images": 12}},
        },
        "features": {**NETWORK, "pooling": "avg"},
        "not_run": "A test.",
    }
    path = tmp_path / "scenes.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(UsageError, match=r"no images of the split test\. Change `data:` in the recipe"):
        capt.reproduce(recipe=str(path), work_dir=str(tmp_path / "W"), split="test")


def test_the_command_line_lists_recipes_and_prints_settings(commands: CommandServer) -> None:
    listed = commands.capt("reproduce", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "flickr8k-soft_attention" in listed.stdout
    shown = commands.capt("reproduce", "captcha-quick", "--dry-run")
    assert yaml.safe_load(shown.stdout)["train"]["profile"] == "quick"
    unknown = commands.capt("reproduce", "captcha-quik", "--dry-run")
    assert unknown.returncode == ExitCode.USAGE
    assert unknown.stderr.count("\n") == 1
    assert "captcha-quick" in unknown.stderr
