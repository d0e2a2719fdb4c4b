"""One retraining, from new data to a decision."""

import importlib.metadata
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from features.io.atomic_files import working_path
from features.io.locations import parse_location
from features.io.locks import hold_lock
from features.store import Store, create_store, open_store
from features.store.champions import ModelDecision
from features.store.layout import MODELS, WORK
from features.store.leases import lease
from schemas.errors import CaptError, ExitCode
from schemas.manifests import Decision, ModelMetadata
from schemas.options.workflows import Retrain
from schemas.table_config import SHORT_FINGERPRINT, digest_of
from trainer.evaluation.paired_evaluation import AnyRun
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.metadata import library_versions
from trainer.runs.run import load_run
from workflows.model_registry import ChampionChangedError, RegisteredModel, current_time
from workflows.retraining import promotion_gate
from workflows.retraining.config import RetrainConfig, read_config
from workflows.retraining.data_checks import DataCheckResult, check_data, check_failures
from workflows.retraining.data_diff import DataDiff, compare_data, failure_rate, load_moments
from workflows.retraining.data_snapshot import DataSnapshot
from workflows.retraining.drift import Moments
from workflows.retraining.notifications import notify
from workflows.retraining.promotion_gate import GateResult
from workflows.tasks import files_named

SEEN, MOMENTS = "seen.parquet", "moments.npz"
NOTHING_NEW = "nothing new"

_DONE = ("promoted", "rejected")

_log = logging.getLogger("capt.retrain")


class StoppedError(CaptError):
    """The rules stopped a retraining.

    Args:
        verdict: Verdict. What they say.
        figures: mapping. The outcome, printed all the same.
    """

    def __init__(self, verdict: DataCheckResult, figures: Mapping[str, Any]) -> None:
        hint = "mend the data, or the rules"
        self.verdict = verdict
        super().__init__(f"stopped: {'; '.join(verdict.stops)}", hint=hint, figures=figures)
        if verdict.too_many_failed:
            self.status = ExitCode.TOO_MANY_FAILURES


def retrain(options: Retrain) -> dict[str, Any]:
    """Prepare what is new, and train, score and promote a challenger where the rules and the gate say so.

    Args:
        options: The YAML file, see `workflows.retraining.config.RetrainConfig`.

    Returns:
        `decision` (`nothing new`, `promoted`, `rejected` or `stale`; with `--dry-run` what would be done), `why`,
        `name`, `store`, `champion` and `run` (both by name, and `path`, where the champion's directory is), `prepared`
        (figures of each preparation), `comparison`, `warnings`, `gate` (its rounds) and `seconds`, as far as it came.

    Raises:
        UsageError: the configuration is wrong.
        LockedError: another process is retraining this model.
        StoppedError: the rules stopped it; it carries the same figures.
        CaptError: something failed; it is entered in the model's history.
    """
    settings = read_config(options.file)
    if options.dry_run:
        return _forecast(settings)
    store = create_store(settings.store)
    model = RegisteredModel(store, settings.name)
    lock = working_path(store.path) / WORK / f"retrain-{settings.name}.lock"
    with (
        hold_lock(lock, f"retraining {settings.name}"),
        lease(store.path, "prepare", {f"{MODELS}/{settings.name}": ()}),
    ):
        cycle = _Cycle(settings, store, model)
        try:
            outcome = cycle.run()
        except Exception as error:
            told = cycle.failed(error)
            notify(settings.hooks, told)
            if isinstance(error, CaptError):
                error.figures = told
            raise
        notify(settings.hooks, outcome)
    return outcome


def print_retrained(result: dict[str, Any]) -> None:
    """Print what `retrain` returned."""
    from schemas.terminal.console import Printer

    printer = Printer()
    for reason in (*result["why"], *result.get("warnings", ())):
        printer.line(reason)
    printer.line(f"{result['decision']}; champion: {result['champion'] or 'none yet'}")


@dataclass(frozen=True)
class PreparedData:
    """What was prepared for a run.

    Args:
        datasets: tuple of str. Names.
        tables: dict. Fingerprints, by the names of the task's preparations; of captions, those of the first dataset.
        texts: tuple of str. The fingerprint of each dataset's text table; none for CAPTCHAs.
        figures: tuple of dict. What each preparation returned.
    """

    datasets: tuple[str, ...]
    tables: dict[str, str]
    texts: tuple[str, ...]
    figures: tuple[dict[str, Any], ...]

    @property
    def failed(self) -> float:
        """Share of the records that failed."""
        return failure_rate(self.figures)


class _Cycle:
    """One retraining under way; what it has found so far is in `found`."""

    def __init__(self, settings: RetrainConfig, store: Store, model: RegisteredModel) -> None:
        self.settings = settings
        self.store = store
        self.model = model
        self.run_name: str | None = None
        self.found: dict[str, Any] = {}
        self._started = time.monotonic()
        self._history = model.history()

    def run(self) -> dict[str, Any]:
        """Go through all stages; the outcome."""
        _log.info("retrain %s: prepare", self.settings.name)
        prepared = prepare(self.settings, self.store, self._frozen())
        seen = see(self.store, prepared)
        content = content_of(self.settings, prepared, seen)
        self.run_name = self._name_of(content)
        self.found |= self._lineage(prepared, seen, content)
        self._abandon_others()
        done = self._done(content)
        if done:
            return self._outcome(NOTHING_NEW, (f"{done.facts.decision} on {done.facts.at[:10]} for the same data",))
        _log.info("retrain %s: compare", self.settings.name)
        comparison = self._compare(prepared, seen)
        if comparison and self._is_too_little(comparison):
            wanted = self.settings.rules.least_new
            return self._outcome(NOTHING_NEW, (f"{comparison.new} new records, {wanted} wanted",))
        self._judge(comparison, prepared)
        _log.info("retrain %s: train", self.settings.name)
        challenger = self._train(prepared, seen)
        _log.info("retrain %s: evaluate", self.settings.name)
        passage = self._contest(challenger, seen)
        _log.info("retrain %s: decide", self.settings.name)
        return self._decide(passage)

    def failed(self, error: Exception) -> dict[str, Any]:
        """Enter a failure in the history, unless it says the same already; the outcome."""
        if isinstance(error, StoppedError):
            return self._enter("stopped", error.verdict.stops)
        why = str(error) if isinstance(error, CaptError) else f"{type(error).__name__}: {error}"
        return self._enter("failed", (why,))

    # === Stages ===

    def _frozen(self) -> str | None:
        """The fingerprint of the text table whose vocabulary is kept."""
        if self.settings.vocabulary == "grown" or not self._champion_run:
            return None
        return str(self._champion_run.metadata.text[0].fingerprint)

    def _compare(self, prepared: PreparedData, seen: DataSnapshot) -> DataDiff | None:
        champion = self._champion_run
        if champion is None:
            return None
        moments = Moments.load(champion.path / MOMENTS) if (champion.path / MOMENTS).exists() else None
        comparison = compare_data(self.store, champion, self._before(champion), moments, seen, prepared.failed)
        self.found["comparison"] = comparison.figures()
        return comparison

    def _judge(self, comparison: DataDiff | None, prepared: PreparedData) -> None:
        """StoppedError where the rules say so; what they warn of is logged and kept."""
        rules = self.settings.rules
        verdict = check_data(comparison, rules) if comparison else check_failures(prepared.failed, rules)
        self.found["warnings"] = list(verdict.warnings)
        for warning in verdict.warnings:
            _log.warning("%s", warning)
        if verdict.stops:
            raise StoppedError(verdict, self.found)

    def _train(self, prepared: PreparedData, seen: DataSnapshot) -> AnyRun:
        assert self.run_name
        path = self.model.run_path(self.run_name)
        options = dict(self.settings.train)
        if self.settings.start == "warm" and self._champion_run:
            options["warm_from"] = str(self._champion_run.path)
        trained = self.settings.doing.train(self.store.path, path, options, prepared.tables, prepared.datasets)
        seen.save(path / SEEN)
        moments = load_moments(self.store, prepared.tables["features"], seen)
        if moments:
            moments.save(path / MOMENTS)
        names = ("epochs", "best_epoch", "steps", "loss", "val_loss", "val_accuracy", "seconds")
        self.found["trained"] = {name: trained[name] for name in names if name in trained}
        run: AnyRun = load_run(path)
        return run

    def _contest(self, challenger: AnyRun, seen: DataSnapshot) -> GateResult:
        champion, settings = self._champion_run, self.settings
        if champion is None:
            return promotion_gate.accept_first_model(challenger, self.store, seen, settings.metric, settings.gate)
        before = self._before(champion)
        return promotion_gate.evaluate_challenger(
            champion, challenger, self.store, before, seen, settings.metric, settings.gate
        )

    def _decide(self, passage: GateResult) -> dict[str, Any]:
        self.found["gate"] = passage.figures()
        if not passage.passed:
            return self._enter("rejected", passage.why)
        facts = self._facts("promoted", passage.why, self.run_name)
        try:
            self.model.promote_over(self._compared, facts)
        except ChampionChangedError as error:
            return self._enter("stale", (f"{error.message}; the next retraining compares with the new one",))
        return self._outcome("promoted", passage.why)

    # === The history ===

    @cached_property
    def _champion_run(self) -> Any:
        """The champion's run; None where there is none yet."""
        return load_run(self.model.bring(self._compared)) if self._compared else None

    @property
    def _compared(self) -> str | None:
        """The champion at the start, which the challenger is compared with; None if there was none."""
        return self._history[-1].facts.champion if self._history else None

    def _before(self, champion: AnyRun) -> DataSnapshot:
        return DataSnapshot.load(champion.path / SEEN)

    def _name_of(self, content: str) -> str:
        warm = self._champion_run.path.name if self.settings.start == "warm" and self._champion_run else None
        return digest_of([content, warm])[:SHORT_FINGERPRINT]

    def _done(self, content: str) -> ModelDecision | None:
        """The decision that ended a run on the same data with the same settings."""
        decided = [one for one in self._history if one.facts.decision in _DONE]
        return next((one for one in reversed(decided) if one.facts.lineage.get("content") == content), None)

    def _is_too_little(self, comparison: DataDiff) -> bool:
        """Whether nothing but too few records has changed since the champion."""
        champion = self._compared
        made = next((one for one in self._history if one.facts.run == champion and one.facts.lineage), None)
        is_set_alike = made is not None and made.facts.lineage.get("settings") == self.found["settings"]
        return is_set_alike and comparison.new < self.settings.rules.least_new

    def _abandon_others(self) -> None:
        """Enter the runs that were killed and that are of no use any more."""
        decided = {one.facts.run for one in self._history}
        for name in self.model.runs():
            if name not in {*decided, self.run_name}:
                why = ("the data or the settings changed before it was finished",)
                task = self.settings.task
                facts = ModelMetadata(
                    task=task, decision="abandoned", run=name, champion=None, why=why, at=current_time()
                )
                self.model.decide(facts)

    def _enter(self, decision: Decision, why: tuple[str, ...]) -> dict[str, Any]:
        """Enter a decision that changes no champion, unless the last one says the same; the outcome."""
        last = self._history[-1].facts if self._history else None
        if last is None or (last.decision, last.run, last.why) != (decision, self.run_name, why):
            self.model.decide(self._facts(decision, why, None))
        return self._outcome(decision, why)

    def _facts(self, decision: Decision, why: tuple[str, ...], champion: str | None) -> ModelMetadata:
        lineage = json.loads(json.dumps({**self.found, "seconds": round(time.monotonic() - self._started, 3)}))
        task = self.settings.task
        return ModelMetadata(
            task=task,
            decision=decision,
            run=self.run_name,
            champion=champion,
            why=why,
            at=current_time(),
            lineage=lineage,
        )

    def _lineage(self, prepared: PreparedData, seen: DataSnapshot, content: str) -> dict[str, Any]:
        return {
            "content": content,
            "settings": settings_of(self.settings, prepared),
            "config": self.settings.model_dump(mode="json"),
            "data": {name: self.store.dataset(name).manifest.digest for name in prepared.datasets},
            "seen": seen.digest,
            "tables": {**prepared.tables, "texts": list(prepared.texts)},
            "prepared": [_counts(one) for one in prepared.figures],
            "before": self._compared,
            "versions": {"capt": importlib.metadata.version("capt"), **library_versions()},
        }

    def _outcome(self, decision: str, why: tuple[str, ...]) -> dict[str, Any]:
        champion = self.model.champion
        told = {name: self.found[name] for name in ("prepared", "comparison", "warnings", "gate") if name in self.found}
        return {
            "decision": decision,
            "why": list(why),
            "name": self.settings.name,
            "store": str(self.store.path),
            "champion": champion,
            "path": str(self.model.run_path(champion)) if champion else None,
            "run": self.run_name,
            **told,
            "seconds": round(time.monotonic() - self._started, 3),
        }


# === Data ===


def prepare(settings: RetrainConfig, store: Store, frozen: str | None, dry_run: bool = False) -> PreparedData:
    """Prepare every dataset; too many failures are for the rules to judge.

    Args:
        settings: RetrainConfig. Which datasets, and how.
        store: Store. The store.
        frozen: str or None. The text table whose vocabulary is taken; None learns one from the first dataset.
        dry_run: bool. As `--dry-run` of the commands.
    """
    figures: list[dict[str, Any]] = []
    texts: list[str] = []
    tables: dict[str, str] = {}
    names = []
    for data in settings.data:
        for table, job in settings.doing.preparations.items():
            options = {"max_failures": "100%", **settings.options(table, data)}
            vocabulary = frozen or (texts[0] if texts else None)
            if table == "captions" and vocabulary:
                learned = ("vocab_size", "min_count")
                options = {name: value for name, value in options.items() if name not in learned} | {
                    "vocab_from": vocabulary
                }
            done = job.prepare(store.path, options, dry_run)
            figures.append(done)
            tables.setdefault(table, str(done["fingerprint"]))
            if table == "captions":
                texts.append(str(done["fingerprint"]))
            else:
                names.append(_name(settings, options))
    return PreparedData(tuple(names), tables, tuple(texts), tuple(figures))


def _name(settings: RetrainConfig, options: Mapping[str, Any]) -> str:
    return str(options.get("dataset_name") or options.get("dataset_type") or settings.task)


def see(store: Store, prepared: PreparedData) -> DataSnapshot:
    """What there is to learn from."""
    if prepared.texts:
        return DataSnapshot.of_captions(store, prepared.datasets, prepared.texts, prepared.tables["features"])
    return DataSnapshot.of_words(store, prepared.datasets, prepared.tables["features"])


def settings_of(settings: RetrainConfig, prepared: PreparedData) -> str:
    """A digest of how a run learns, whatever from."""
    how = [settings.task, settings.doing.settings(settings.train), settings.start, settings.vocabulary]
    return digest_of([*how, settings.captions, prepared.tables["features"], files_named(settings.train)])


def content_of(settings: RetrainConfig, prepared: PreparedData, seen: DataSnapshot) -> str:
    """A digest of what a run learns from and how; equal ones would learn the same."""
    return digest_of([settings_of(settings, prepared), seen.digest])


def _counts(figures: Mapping[str, Any]) -> dict[str, Any]:
    names = ("dataset", "input", "ok", "cached", "duplicate", "failed", "fingerprint", "seconds", "reasons")
    return {name: figures[name] for name in names if name in figures}


# === The plan ===


def _forecast(settings: RetrainConfig) -> dict[str, Any]:
    started = time.monotonic()
    root = parse_location(settings.store)
    there = root.exists()
    store = open_store(root) if there else Store(root)
    model = RegisteredModel(store, settings.name)
    champion = model.champion if there else None
    run = load_run(model.bring(champion)) if champion else None
    frozen = (
        str(run.metadata.text[0].fingerprint)
        if settings.vocabulary == "frozen" and isinstance(run, CaptionerRun)
        else None
    )
    prepared = prepare(settings, store, frozen, dry_run=True)
    decision, why = (
        _expected(settings, store, model, prepared) if there else ("prepare and train", "there is no store yet")
    )
    return {
        "dry_run": True,
        "decision": decision,
        "why": [why],
        "name": settings.name,
        "store": str(store.path),
        "champion": champion,
        "path": str(run.path) if run else None,
        "prepared": [
            {**_counts(one), **{n: one[n] for n in ("hits", "misses", "estimated_seconds") if n in one}}
            for one in prepared.figures
        ],
        "seconds": round(time.monotonic() - started, 3),
    }


def _expected(settings: RetrainConfig, store: Store, model: RegisteredModel, prepared: PreparedData) -> tuple[str, str]:
    """What a start would do, and why."""
    missing = sum(one["misses"] for one in prepared.figures)
    if missing:
        return "prepare, compare and train where the rules allow", f"{missing:,} records are new to the store"
    changed = [name for name in prepared.datasets if name not in {one.name for one in store.datasets()}]
    if changed:
        return "prepare, compare and train where the rules allow", f"{changed[0]} is not in the store yet"
    images = zip(prepared.datasets, _of_images(settings, prepared), strict=True)
    gone = sum(_images_gone(store, name, one) for name, one in images)
    if gone:
        return "prepare, compare and train where the rules allow", f"{gone:,} images are gone"
    content = content_of(settings, prepared, see(store, prepared))
    done = [
        one for one in model.history() if one.facts.decision in _DONE and one.facts.lineage.get("content") == content
    ]
    if done:
        return NOTHING_NEW, f"{done[-1].facts.decision} on {done[-1].facts.at[:10]} for the same data"
    return "compare and train where the rules allow", "the data in the store, or the settings, are new to the model"


def _of_images(settings: RetrainConfig, prepared: PreparedData) -> list[dict[str, Any]]:
    """The figures of the preparations of images, one a dataset."""
    kinds = list(settings.doing.preparations)
    return [one for place, one in enumerate(prepared.figures) if kinds[place % len(kinds)] == "features"]


def _images_gone(store: Store, name: str, planned: Mapping[str, Any]) -> int:
    there = sum(store.dataset(name).facts.images.values())
    return max(0, there - int(planned["input"]) + int(planned["failed"]))
