"""Implements `capt reproduce`: data → tables → runs → scores → verdict and page. Each step skips finished work."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml

from features.io.atomic_files import hash_file
from features.io.locks import hold_lock
from features.store import open_store
from schemas.errors import CaptError, StoreError, UsageError
from schemas.options.inference import Report
from schemas.options.workflows import Reproduce
from schemas.table_config import compute_digest
from schemas.terminal.console import Printer
from trainer.evaluation.evaluate import SKIPPED
from trainer.reports.page_files import write_page
from trainer.runs.metadata import METADATA, read_metadata
from trainer.runs.run import load_run
from workflows.experiments.config import SEED
from workflows.experiments.records import CAPTIONS, read_record, write_record
from workflows.prepared_tasks import evaluate_run, find_prepared_task
from workflows.reproduction.inputs import Inputs, find_extractors, provide_inputs
from workflows.reproduction.page import ReproducedRun, build_reproduction_page
from workflows.reproduction.recipe import Recipe
from workflows.reproduction.recipe_files import NamedRecipe, find_recipe, list_names
from workflows.reproduction.records import EvaluationRecord, ReproductionRecord, WorkDirectory, open_work_directory
from workflows.reproduction.verdict import Verdict, average_scores, judge

_log = logging.getLogger("capt.reproduce")

# Images that an evaluation skips.
_UNSCORED = ("without_features", "without_image", "without_label")


def reproduce(options: Reproduce) -> dict[str, Any]:
    """Runs a recipe, or what is left of it.

    Returns:
        `recipe`, `task`, `split`, `scores` (means over the runs, as fractions), `passed` (whether all scores are in
        their bands; null if the bands do not apply), `verdict` (the same in words), `bands` by score (`score`, `low`,
        `high`, `passed`), `deviations` (what differs from the recipe), `data` (`origin`, numbers of `images`, `files`),
        `runs` (`recipe`, `seed`, `run_dir`, `epochs`, `best_epoch`, number of scored `images`, `scores`; neither images
        nor scores for members of an ensemble),
        `ensemble`, `work_dir`, `store`, `page_path` and `seconds`. With `list`: `recipes`, for each `recipe`,
        `description`, `task`, `model`, `data`, `minutes`, `gigabytes`, `expected` (`scores`, `derivation`, `measured`;
        null without bands) and `not_run`. With `dry_run`: `recipe`, `split`, `dry_run`, `settings` (the complete
        recipe) and `members` (those of an ensemble, by name).

    Raises:
        UsageError: The recipe, an option or a file of the data is wrong.
        LockedError: Another process uses the work directory.
        CaptError: A score is outside its band. The error has the same values.
    """
    if options.list:
        return {"recipes": [_describe(find_recipe(name)) for name in list_names()]}
    if options.recipe is None:
        hint = "Name a recipe. `capt reproduce --list` lists them."
        raise UsageError("a value is required", location="RECIPE", hint=hint)
    named = find_recipe(options.recipe)
    if options.dry_run:
        members = {member.name: member.recipe.resolve() for member in named.ensemble}
        head = {"recipe": named.name, "split": options.split, "dry_run": True}
        return {**head, "settings": named.recipe.resolve(), "members": members}
    if options.work_dir is None:
        raise UsageError("a value is required", location="--work-dir", hint="Choose a new or empty directory.")
    extractors = find_extractors(named, options.extractor)
    directory = open_work_directory(options.work_dir)
    with hold_lock(directory.lock, "reproducing here"):
        inputs = provide_inputs(named, options, directory.root)
        return _Reproduction(named, options, directory, inputs, extractors).run()


def print_reproduction(result: Mapping[str, Any]) -> None:
    """Prints the recipes, the settings of a dry run, or the scores with their verdict."""
    printer = Printer()
    if "recipes" in result:
        _print_recipes(printer, result["recipes"])
        return
    if "dry_run" in result:
        print(_to_yaml(result["settings"]), end="")
        for name, settings in result["members"].items():
            lines = [f"{name}.yaml:", *_to_yaml(settings).splitlines()]
            print("\n".join(f"# {line}" for line in lines))
        return
    bands = result["bands"]
    titles = find_prepared_task(result["task"]).task.metrics
    rows = [
        (titles[name], _format_passed(bands.get(name)), f"{100 * score:.1f}", _format_band(bands.get(name)))
        for name, score in result["scores"].items()
    ]
    printer.table(f"{result['recipe']}, {result['split']} (× 100)", ("score", "verdict"), ("value", "band"), rows)
    printer.line(result["verdict"], "green" if result["passed"] else "yellow")
    printer.line(f"page: {result['page_path']}")


def _describe(named: NamedRecipe) -> dict[str, Any]:
    recipe, data = named.recipe, named.members[0].recipe.data
    return {
        "recipe": named.name,
        "description": recipe.description,
        "task": recipe.task,
        "model": recipe.model,
        "data": data.title if data else None,
        "minutes": recipe.minutes,
        "gigabytes": recipe.gigabytes,
        "expected": recipe.expected.model_dump(mode="json") if recipe.expected else None,
        "not_run": recipe.not_run,
    }


def _print_recipes(printer: Printer, recipes: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["recipe"],
            one["data"],
            _format_expected(one),
            _format_origin(one),
            None if one["minutes"] is None else f"{one['minutes']:,.0f}",
            None if one["gigabytes"] is None else f"{one['gigabytes']:,.1f}",
        )
        for one in recipes
    ]
    printer.table("recipes", ("recipe", "data", "expected on val, × 100", "measured"), ("minutes", "GB"), rows)
    printer.line("Print the settings of a recipe with: capt reproduce RECIPE --dry-run")


def _format_expected(described: Mapping[str, Any]) -> str | None:
    """Returns the band of the primary metric, or the first one."""
    if not described["expected"]:
        return None
    scores, titles = described["expected"]["scores"], find_prepared_task(described["task"]).task.metrics
    name = next((name for name in titles if name in scores), "")
    low, high = scores[name]
    return f"{titles[name]} {100 * low:.1f} to {100 * high:.1f}"


def _format_origin(described: Mapping[str, Any]) -> str:
    measured = (described["expected"] or {}).get("measured")
    if measured:
        return f"{measured['date']}, {measured['machine']}: {measured['command']}"
    return str(described["not_run"])


def _format_passed(band: Mapping[str, Any] | None) -> str | None:
    return {True: "pass", False: "fail", None: None}[band["passed"]] if band else None


def _format_band(band: Mapping[str, Any] | None) -> str | None:
    return f"{100 * band['low']:.1f} to {100 * band['high']:.1f}" if band else None


def _to_yaml(settings: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=110))


@dataclass(frozen=True)
class _Trained:
    """A run of a recipe: its directories by stage, and the result of the last stage's training."""

    member: NamedRecipe
    seed: int
    tables: Mapping[str, str]
    stages: tuple[Path, ...]
    trained: Mapping[str, Any]

    @property
    def run_dir(self) -> Path:
        return self.stages[-1]

    @property
    def name(self) -> str:
        return f"{self.member.name}-seed{self.seed}"


@dataclass(frozen=True)
class _Reproduction:
    """A reproduction whose work directory is locked."""

    named: NamedRecipe
    options: Reproduce
    directory: WorkDirectory
    inputs: Inputs
    extractors: Mapping[str, Mapping[str, Any]]

    @property
    def recipe(self) -> Recipe:
        return self.named.recipe

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.recipe.seeds if self.options.seed is None else (self.options.seed,)

    @property
    def label(self) -> str:
        """Name of the results: the recipe, and the seed if it is not one of the recipe's."""
        return self.named.name if self.seeds == self.recipe.seeds else f"{self.named.name}-seed{self.options.seed}"

    def run(self) -> dict[str, Any]:
        started = time.monotonic()
        tables = {member.name: self._prepare(member) for member in self.named.members}
        self._check_split()
        runs = [self._train(member, seed, tables[member.name]) for seed in self.seeds for member in self.named.members]
        evaluations = self._evaluate(runs)
        task = self.recipe.training_task.task
        scores = [{name: score.value for name, score in task.read_scores(one).items()} for one in evaluations]
        deviations = [*self.inputs.deviations, *self._list_skipped(runs, evaluations)]
        if not set(self.seeds) <= set(self.recipe.seeds):
            seeds = ", ".join(map(str, self.recipe.seeds))
            deviations.append(f"The seed is {self.options.seed}, and those of the recipe are {seeds}.")
        verdict = judge(average_scores(scores), self.recipe.expected, self.options.split, deviations)
        page = self.directory.page(self.label, self.options.split)
        result = {
            "recipe": self.named.name,
            "task": self.recipe.task,
            "split": self.options.split,
            "scores": average_scores(scores),
            "passed": verdict.passed,
            "verdict": verdict.describe(),
            "bands": {band.name: band.to_dict() for band in verdict.bands},
            "deviations": deviations,
            "data": self.inputs.to_dict(),
            "runs": [
                {
                    "recipe": run.member.name,
                    "seed": run.seed,
                    "run_dir": str(run.run_dir),
                    "epochs": run.trained["epochs"],
                    "best_epoch": run.trained["best_epoch"],
                    **(
                        {}
                        if self.recipe.ensemble
                        else {"images": evaluations[number]["images"], "scores": scores[number]}
                    ),
                }
                for number, run in enumerate(runs)
            ],
            "ensemble": bool(self.recipe.ensemble),
            "work_dir": str(self.directory.root),
            "store": str(self.directory.store),
            "page_path": str(page),
            "seconds": round(time.monotonic() - started, 3),
        }
        write_record(self.directory.result(self.label, self.options.split), ReproductionRecord(result=result))
        shown = [
            ReproducedRun(run.name, run.stages, evaluations[number] if number < len(evaluations) else None)
            for number, run in enumerate(runs)
        ]
        write_page(page, build_reproduction_page(self.named, result, verdict, shown))
        self._raise_failure(verdict, result)
        return result

    def _prepare(self, member: NamedRecipe) -> dict[str, str]:
        """Prepares the tables of a recipe, and returns their fingerprints by kind."""
        fingerprints = {}
        for kind, preparation in member.recipe.training_task.preparations.items():
            _log.info("%s: preparing %s.", member.name, preparation.command)
            options = member.recipe.preparation_options(kind, self.inputs.options)
            extractor = self.extractors[member.name] if "extractor" in preparation.options.model_fields else {}
            summary = preparation.prepare(self.directory.store, {**options, **extractor})
            fingerprints[kind] = str(summary["fingerprint"])
        return fingerprints

    def _check_split(self) -> None:
        dataset = open_store(self.directory.store).dataset(self.named.members[0].recipe.dataset)
        if not pc.any(pc.equal(dataset.catalog()["split"], self.options.split)).as_py():
            message = f"the data have no images of the split {self.options.split}"
            is_generated = self.inputs.origin == "generated"
            hint = "Change `data:` in the recipe." if is_generated else "Add their list by --annotations."
            raise UsageError(message, location=f"--split {self.options.split}", hint=hint)

    def _train(self, member: NamedRecipe, seed: int, tables: Mapping[str, str]) -> _Trained:
        """Trains the stages of a run."""
        task, recipe, trained = member.recipe.training_task, member.recipe, dict[str, Any]()
        stages: list[Path] = []
        for number, options in enumerate(recipe.list_stages(), 1):
            run_dir = self.directory.run(member.trained_by(number), seed, number)
            _log.info("%s: training, seed %d, stage %d of %d.", member.name, seed, number, len(recipe.stages))
            start = {"warm_start_from": str(stages[-1])} if stages else {}
            try:
                _check_length(run_dir, task.settings(options))
                trained = task.train(
                    self.directory.store, run_dir, {**options, SEED: seed, **start}, tables, [recipe.dataset]
                )
            except StoreError as error:
                if error.location != str(run_dir):
                    raise
                hint = f"Choose another --work-dir, or delete {run_dir}."
                raise StoreError(error.message, location=error.location, hint=hint) from None
            finally:
                _release_models()
            stages.append(run_dir)
        return _Trained(member, seed, tables, tuple(stages), trained)

    def _evaluate(self, runs: list[_Trained]) -> list[dict[str, Any]]:
        """Evaluates each run, or all as one ensemble."""
        if self.recipe.ensemble:
            return [self._evaluate_once(self.label, runs[0], runs)]
        return [self._evaluate_once(run.name, run, [run]) for run in runs]

    def _evaluate_once(self, name: str, run: _Trained, members: list[_Trained]) -> dict[str, Any]:
        path = self.directory.evaluation(name, self.options.split)
        options = {**self.recipe.evaluate, "split": self.options.split}
        if len(members) > 1:
            options["ensemble"] = [str(other.run_dir) for other in members[1:]]
        truth = self.inputs.truth if self.options.split == "test" else None
        if truth:
            options["labels"] = truth
        identity = self._identify(options, members)
        last = read_record(path, EvaluationRecord)
        if last and last.identity == identity and _is_complete(last.evaluated):
            _log.info("%s: already evaluated on %s.", name, self.options.split)
            return last.evaluated
        # Importing TensorFlow takes seconds. `--list` and `--dry-run` do not need it.
        from workflows.run_report import report_run

        _log.info("%s: evaluating on %s.", name, self.options.split)
        try:
            evaluated = evaluate_run(self.directory.store, run.run_dir, options)
            report_run(Report(run=str(run.run_dir)))
        finally:
            _release_models()
        del evaluated["runs"]  # repeats the metrics of the single run
        write_record(path, EvaluationRecord(identity=identity, evaluated=evaluated))
        return evaluated

    def _identify(self, options: Mapping[str, Any], members: list[_Trained]) -> str:
        """Returns a digest of all inputs that determine the scores of an evaluation."""
        store = open_store(self.directory.store)
        trained = []
        for run in members:
            captions = store.caption_table(run.tables[CAPTIONS]).manifests if CAPTIONS in run.tables else ()
            trained.append([load_run(run.run_dir).identity, [manifest.digest for manifest in captions]])
        dataset = store.dataset(members[0].member.recipe.dataset).digest
        labels = hash_file(Path(options["labels"])) if "labels" in options else None
        return compute_digest([trained, dataset, dict(options), labels, str(self.directory.root)])

    def _list_skipped(self, runs: list[_Trained], evaluations: list[dict[str, Any]]) -> list[str]:
        """Lists what is neither trained on nor scored, in sentences."""
        trained = [
            f"{split}: skipped records without features: {count:,}."
            for run in runs
            for split, count in run.trained["without_features"].items()
            if count and split != "test"
        ]
        scored = [
            f"{self.options.split}: {SKIPPED[reason]}: {one[reason]:,}."
            for one in evaluations
            for reason in _UNSCORED
            if one.get(reason)
        ]
        return list(dict.fromkeys([*trained, *scored]))

    def _raise_failure(self, verdict: Verdict, result: Mapping[str, Any]) -> None:
        if verdict.passed is not False:
            return
        for one in verdict.bands:
            shown = "pass" if one.passed else "fail"
            _log.info("%s: %s, band %.4f to %.4f: %s.", self.label, one.name, one.low, one.high, shown)
        failed = [f"{one.name} {one.value:.4f} not in {one.low:.4f} to {one.high:.4f}" for one in verdict.failed]
        message = f"{len(failed)} of {len(verdict.bands)} scores are outside their bands: {'; '.join(failed)}"
        raise CaptError(message, location=self.named.name, hint=f"See {result['page_path']}.", summary=result)


def _check_length(run_dir: Path, settings: Mapping[str, Any]) -> None:
    """Raises StoreError if the directory contains a run that trains longer than these hyperparameters."""
    if not (run_dir / METADATA).exists():
        return
    training = read_metadata(run_dir).training
    for name in ("epochs", "early_stopping_patience"):
        last, limit = getattr(training, name), settings.get(name)
        if limit is not None and (last is None or last > limit):
            message = f"the directory contains a longer run: {name}: expected at most {limit}, got {last}"
            raise StoreError(message, location=str(run_dir))


def _is_complete(evaluated: Mapping[str, Any]) -> bool:
    """Returns whether an evaluation has its files, and METEOR if there is Java now."""
    can_add = bool(evaluated.get("skipped_metrics")) and shutil.which("java") is not None
    return Path(evaluated["scores_path"]).exists() and not can_add


def _release_models() -> None:
    # Importing Keras takes seconds.
    from features.runtime.keras_settings import keras

    keras.utils.clear_session()
