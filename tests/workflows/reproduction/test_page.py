"""The page of a reproduction links to the pages of its runs."""

from pathlib import Path

from workflows.reproduction.page import ReproducedRun, build_reproduction_page
from workflows.reproduction.recipe_files import find_recipe
from workflows.reproduction.verdict import judge


def test_links_to_names_with_special_characters_are_quoted(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "50% of #1" / "seed0" / "stage1"
    evaluated = {"intervals": {}, "exact_match": 0.5, "page_path": None}
    run = ReproducedRun("50% of #1-seed0", (run_dir,), evaluated)
    result = {
        "split": "val",
        "scores": {"exact_match": 0.5},
        "deviations": [],
        "data": {"origin": "generated", "images": {}, "files": {}},
        "runs": [{"epochs": 1, "best_epoch": 1, "images": 7, "scores": {"exact_match": 0.5}}],
        "work_dir": str(tmp_path),
        "seconds": 1.0,
    }
    verdict = judge({"exact_match": 0.5}, None, "val", [])
    page = build_reproduction_page(find_recipe("captcha-quick"), result, verdict, [run])
    assert 'href="runs/50%25%20of%20%231/seed0/stage1/report.html"' in page
