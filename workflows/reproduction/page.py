"""Builds the HTML page of a reproduction."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from trainer.reports.markup import Html, caption_list, document, element, header, plot, row, section, table
from trainer.runs.directory import LOSS_PLOT, REPORT
from workflows.example_pages import format_duration
from workflows.experiments.report_page import format_score
from workflows.reproduction.recipe_files import NamedRecipe
from workflows.reproduction.verdict import Verdict

_VERDICTS = {True: "✓ pass", False: "✗ fail", None: "–"}


@dataclass(frozen=True)
class ReproducedRun:
    """A run: its name, its directories by stage, and its result of `capt evaluate`; None for members of an ensemble."""

    name: str
    stages: tuple[Path, ...]
    evaluated: Mapping[str, Any] | None


def build_reproduction_page(
    named: NamedRecipe, result: Mapping[str, Any], verdict: Verdict, runs: Sequence[ReproducedRun]
) -> str:
    """Builds the page as an HTML document."""
    title = f"Recipe {named.name}"
    tiles = {"split": result["split"], "runs": len(runs), "data": result["data"]["origin"]}
    return document(
        title,
        header(title, f"{named.recipe.description} {verdict.describe()}", result["deviations"], tiles),
        element(
            "main",
            section("Scores", *_build_scores(named, result, verdict, runs)),
            section("Runs", *_build_runs(named, result, runs)),
            section("Curves", *(_build_curve(run) for run in runs)),
            section("Data", *_build_data(named, result["data"])),
            section("Settings", *_build_settings(named)),
            class_="report",
        ),
    )


def _build_scores(
    named: NamedRecipe, result: Mapping[str, Any], verdict: Verdict, runs: Sequence[ReproducedRun]
) -> Iterator[Html]:
    task = named.recipe.training_task.task
    bands = {band.name: band for band in verdict.bands}
    found = [task.read_scores(run.evaluated) for run in runs if run.evaluated]
    rows = []
    for name in dict.fromkeys([*result["scores"], *bands]):
        value, band = result["scores"].get(name), bands.get(name)
        shown = format_score(found[0][name]) if len(found) == 1 and value is not None else None
        mean = "not computed" if value is None else f"{100 * value:.1f}"
        limits = f"{100 * band.low:.1f} to {100 * band.high:.1f}" if band else "–"
        passed = _VERDICTS[band.passed if band else None]
        rows.append(row(task.metrics[name], shown or mean, limits, passed))
    heads = ("metric, × 100", "score (95% interval)" if len(found) == 1 else "mean score", "band", "verdict")
    yield table(heads, rows)
    expected = named.recipe.expected
    notes = [f"Bands: {expected.derivation}."] if expected else []
    if expected and expected.measured:
        measured = expected.measured
        notes.append(f"Measured on {measured.date}, {measured.machine}, by `{measured.command}`.")
    if named.recipe.not_run:
        notes.append(f"Not measured: {named.recipe.not_run}.".replace("..", "."))
    yield caption_list(notes)


def _build_runs(named: NamedRecipe, result: Mapping[str, Any], runs: Sequence[ReproducedRun]) -> Iterator[Html]:
    root, titles = Path(result["work_dir"]), named.recipe.training_task.task.metrics
    rows = []
    for run, described in zip(runs, result["runs"], strict=True):
        scores = described.get("scores", {})
        name = next((name for name in titles if name in scores), "")
        score = f"{titles[name]} {100 * scores[name]:.1f}" if name else "–"
        links = [(run.stages[-1] / REPORT, "report")] if run.evaluated else []
        if run.evaluated and run.evaluated["page_path"]:
            links.append((Path(run.evaluated["page_path"]), "predictions"))
        cells = [element("a", text, href=quote(os.path.relpath(path, root))) for path, text in links]
        images = f"{described['images']:,}" if "images" in described else "–"
        numbers = (len(run.stages), described["epochs"], described["best_epoch"], images, score)
        rows.append(row(run.name, *numbers, element("td", *(part for cell in cells for part in (cell, " ")))))
    yield table(("run", "stages", "epochs of the last stage", "best epoch", "images", "score", "pages"), rows)
    yield element("p", f"This command took {format_duration(result['seconds'])}.", class_="quiet")


def _build_curve(run: ReproducedRun) -> Html:
    found = [path / LOSS_PLOT for path in run.stages]
    plots = [
        plot(path.read_bytes(), f"{run.name}: loss by epoch", f"{run.name}, stage {number}")
        for number, path in enumerate(found, 1)
        if path.exists()
    ]
    return element("div", *plots)


def _build_data(named: NamedRecipe, data: Mapping[str, Any]) -> Iterator[Html]:
    recipe_data = named.members[0].recipe.data
    notes = [recipe_data.title] if recipe_data else []
    if counts := data["images"]:
        equal = counts["expected"] - counts["different"]
        notes.append(f"{equal:,} of {counts['expected']:,} images have the SHA-256 of the recipe.")
        notes.append(f"{counts['unlisted']:,} images are not in the checksum list.")
    elif data["origin"] == "given":
        notes.append("The recipe has no checksums of the images.")
    notes += [
        f"{name}: {'equal to' if equal else 'differs from'} the recipe's" for name, equal in data["files"].items()
    ]
    yield caption_list(notes)


def _build_settings(named: NamedRecipe) -> Iterator[Html]:
    for one in dict.fromkeys((named.name, *(member.name for member in named.members))):
        recipe = named if one == named.name else next(member for member in named.members if member.name == one)
        text = yaml.safe_dump(recipe.resolve(), sort_keys=False, allow_unicode=True, width=110)
        yield element("details", element("summary", one), element("pre", text))
