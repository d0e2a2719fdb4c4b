"""Promotes runs of a registered model to champion and lists its decisions: `capt models`.

The champion is the run that the last commit names, so one log entry changes it. The files of the last `KEPT`
champions are kept for rollbacks. A decision is built from the log state at the moment of the commit, so no decision
overwrites another one that it has not read.
"""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.io.atomic_files import describe_file, publish
from features.io.file_trees import files_below
from features.io.temporary_names import TEMP_PREFIX
from features.store.commit_log import LogState
from features.store.corruption import has_valid_checksum
from features.store.layout import MODELS
from features.store.leases import lease, table_name
from features.store.model_history import ModelHistory, list_decisions
from features.store.store import Store, open_store
from schemas.errors import CorruptFileError, StoreError
from schemas.manifests import Decision, FileEntry, Manifest, ModelMetadata
from schemas.options.workflows import ModelsLs, ModelsPromote, ModelsRollback, ModelsShow
from schemas.terminal.console import Printer
from trainer.runs.directory import EVALUATION, LEARNING_CURVE, LOCK

KEPT = 5
# Decisions about a run that was trained and evaluated.
EVALUATED: tuple[Decision, ...] = ("promoted", "rejected", "stale")


class ChampionChangedError(StoreError):
    """The champion has changed since the comparison that the decision is based on."""


class RegisteredModel(ModelHistory):
    """A registered model of a store, with methods to record decisions."""

    def decide(self, facts: ModelMetadata) -> None:
        """Records a decision that does not change the champion. The champion in `facts` is ignored."""

        def build(log_state: LogState) -> Manifest:
            return Manifest(table=self.name, facts=facts.model_copy(update={"champion": _read_champion(log_state)}))

        with self._lease():
            self._log.update(build)

    def promote(self, facts: ModelMetadata) -> str | None:
        """Makes `facts.champion` the champion, by one commit that references its files, and releases old champions.

        Returns:
            The previous champion.

        Raises:
            CorruptFileError: A file of the run is corrupt.
            StoreError: The run does not exist.
        """
        return self._promote(facts, lambda previous: None)

    def promote_over(self, champion: str | None, facts: ModelMetadata) -> str | None:
        """Promotes a run as `promote` does, if the champion is still the one of the comparison.

        Raises ChampionChangedError if the champion has changed.
        """

        def check(previous: str | None) -> None:
            if previous != champion:
                raise ChampionChangedError(
                    f"the champion changed from {champion or 'none'} to {previous or 'none'} during the command",
                    location=str(self.root),
                    hint="Read `capt models show`, and run the command again.",
                )

        return self._promote(facts, check)

    def _promote(self, facts: ModelMetadata, check: Callable[[str | None], None]) -> str | None:
        assert facts.champion is not None
        previous: str | None = None

        def build(log_state: LogState) -> Manifest:
            nonlocal previous
            previous = _read_champion(log_state)
            check(previous)
            replaces = _find_released(log_state, facts.champion)
            return Manifest(table=self.name, facts=facts, files=files, replaces=replaces)

        with self._lease():
            check(self.champion)
            files = self._list_files(facts.champion)
            self._log.update(build)
        return previous

    def _lease(self) -> contextlib.AbstractContextManager[Path]:
        """Keeps garbage collection from deleting files of the model."""
        return lease(self._store, "change", {table_name(self._store, self.root): ()})

    def _list_files(self, run: str) -> dict[str, FileEntry]:
        """Returns the files of a run by path: those that its first promotion references, or those on this machine.

        The latter are uploaded to a store in a bucket, or synced in a local store.
        """
        if known := self.promoted_files(run):
            corrupt = [entry.path for entry in known.values() if not has_valid_checksum(self.root, entry)]
            if corrupt:
                raise CorruptFileError(
                    f"a file of the run {run} is corrupt or missing",
                    location=str(self.root / corrupt[0]),
                    hint="Choose another run with `capt models promote`.",
                )
            return known
        root = self.run_path(run)
        paths = [path for path in files_below(root) if _is_kept(path.relative_to(root).parts)] if root.is_dir() else []
        if not paths:
            runs = self.runs()
            hint = f"The runs on this machine are {', '.join(runs)}." if runs else "No run is on this machine."
            raise StoreError(f"the run {run} does not exist", location=str(root), hint=hint)
        files = {path.relative_to(root).as_posix(): describe_file(path, self._here) for path in paths}
        for entry in files.values():
            publish(self.root / entry.path)
        return files


def list_registered_models(store: Store) -> list[RegisteredModel]:
    """Returns the registered models of a store that have a commit, by name."""
    logs = sorted((store.path / MODELS).glob("*/log"))
    return [RegisteredModel(store, log.parent.name) for log in logs if any(log.glob("*.json"))]


def current_time() -> str:
    """Returns the current time in the format of `ModelMetadata.decided_at`."""
    return datetime.now(UTC).isoformat()


# === Commands ===


def list_models(options: ModelsLs) -> dict[str, Any]:
    """Lists the registered models of a store.

    Returns:
        `store`, and `models` with `name`, `task`, `champion` (its run), `since` (the time of its promotion),
        `champion_dir` (its run directory), `decisions` (the number of decisions) and `last` (the last decision).
    """
    store = open_store(options.store)
    return {"store": str(store.path), "models": [_describe(model) for model in list_registered_models(store)]}


def show_model(options: ModelsShow) -> dict[str, Any]:
    """Shows one registered model with its decisions, and downloads its champion.

    Returns:
        The entry of `list_models`, and `history`: for each decision, oldest first, `number`, `decision`, `run`,
        `champion`, `reasons`, `decided_at` and `lineage`.

    Raises:
        StoreError: The model does not exist, or the store has several models and none is named.
    """
    model = _find_model(open_store(options.store), options.model_name)
    history = [{"number": one.number, **one.facts.model_dump(mode="json", exclude={"kind"})} for one in model.history()]
    if model.champion:
        model.ensure_local(model.champion)
    return {**_describe(model), "history": history}


def promote_model(options: ModelsPromote) -> dict[str, Any]:
    """Makes a run the champion, regardless of earlier decisions about it. The run was trained and evaluated.

    Returns:
        `name`, `champion` and `before`, the previous champion.

    Raises:
        StoreError: The run does not exist, or its files are missing.
        CorruptFileError: The files of the run are corrupt.
    """
    model = _find_model(open_store(options.store), options.model_name)
    finished = [one for one in model.history() if one.facts.decision in EVALUATED]
    runs = list(dict.fromkeys(one.facts.run for one in finished if one.facts.run))
    found = [run for run in runs if run.startswith(options.run)]
    if len(found) != 1:
        raise StoreError(
            f"the names of {'several' if found else 'no'} finished runs begin with {options.run!r}",
            location=str(model.root),
            hint=f"Use one of {', '.join(runs)}." if runs else "Train one with `capt retrain`.",
        )
    facts = _build_metadata(model, found[0], "chosen", "chosen by a person")
    return {"name": model.name, "champion": facts.champion, "before": model.promote(facts)}


def rollback_model(options: ModelsRollback) -> dict[str, Any]:
    """Makes the previous champion the champion again.

    Returns:
        The same as `promote_model`.

    Raises:
        StoreError: The model has no previous champion.
        ChampionChangedError: Another command changed the champion.
        CorruptFileError: The files of the previous champion are corrupt.
    """
    model = _find_model(open_store(options.store), options.model_name)
    # A rollback removes the champion from the stack, so that a second rollback returns to the champion before it.
    stack: list[str] = []
    for one in model.history():
        champion = one.facts.champion
        if champion is not None and (not stack or stack[-1] != champion):
            if one.facts.decision == "rolled_back" and champion in stack:
                del stack[stack.index(champion) + 1 :]
            else:
                stack.append(champion)
    if len(stack) < 2:
        raise StoreError("the model has no previous champion", location=str(model.root))
    facts = _build_metadata(model, stack[-2], "rolled_back", f"rolled back from {stack[-1]}")
    return {"name": model.name, "champion": facts.champion, "before": model.promote_over(stack[-1], facts)}


def print_models(result: dict[str, Any]) -> None:
    """Prints the result of `list_models`."""
    rows = [
        [one["name"], one["task"], one["champion"] or "", (one["since"] or "")[:16], one["last"]]
        for one in result["models"]
    ]
    Printer().table(f"models in {result['store']}", ("name", "task", "champion", "since", "last decision"), (), rows)


def print_model(result: dict[str, Any]) -> None:
    """Prints the result of `show_model`."""
    printer = Printer()
    rows = [
        [str(one["number"]), one["decided_at"][:16], one["decision"], one["run"] or "", "; ".join(one["reasons"])]
        for one in result["history"]
    ]
    printer.table(result["name"], ("", "decided at", "decision", "run", "reasons"), (), rows)
    printer.line(f"champion: {result['champion_dir'] or 'none yet'}")


def _build_metadata(model: RegisteredModel, run: str, decision: Decision, reason: str) -> ModelMetadata:
    """Returns the metadata of a user's decision that makes a run the champion."""
    task = model.history()[-1].facts.task
    return ModelMetadata(
        task=task, decision=decision, run=run, champion=run, reasons=(reason,), decided_at=current_time()
    )


def _read_champion(log_state: LogState) -> str | None:
    """Returns the champion that the last decision names. Raises StoreError if its manifest may be unreadable."""
    log_state.check_complete()
    decisions = list_decisions(log_state)
    return decisions[-1].facts.champion if decisions else None


def _find_released(log_state: LogState, champion: str | None) -> tuple[str, ...]:
    """Returns the commits of champions that are no longer kept once another run is the champion."""
    champions = [one.facts.champion for one in reversed(list_decisions(log_state)) if one.facts.champion]
    kept = {champion, *[run for run in dict.fromkeys(champions) if run != champion][: KEPT - 1]}
    return tuple(
        manifest.digest
        for manifest in log_state.live
        if isinstance(manifest.facts, ModelMetadata) and manifest.files and manifest.facts.champion not in kept
    )


def _describe(model: RegisteredModel) -> dict[str, Any]:
    history = model.history()
    last = history[-1].facts
    since = next((one.facts.decided_at for one in reversed(history) if one.manifest.files), None)
    return {
        "name": model.name,
        "task": last.task,
        "champion": last.champion,
        "since": since,
        "champion_dir": str(model.run_path(last.champion)) if last.champion else None,
        "decisions": len(history),
        "last": last.decision,
    }


def _find_model(store: Store, name: str | None) -> RegisteredModel:
    """Returns the model with this name, or the only model."""
    models = list_registered_models(store)
    found = [model for model in models if name in (None, model.name)]
    if len(found) != 1:
        names = ", ".join(model.name for model in models)
        message = f"has no model {name!r}" if name and models else "has several models" if found else "has no model"
        hint = f"Choose one with --model-name: {names}." if names else "Create one with `capt retrain`."
        raise StoreError(f"the store {message}", location=str(store.path), hint=hint)
    return found[0]


def _is_kept(parts: tuple[str, ...]) -> bool:
    return parts[0] not in (EVALUATION, LEARNING_CURVE, LOCK) and not any(
        part.startswith(TEMP_PREFIX) for part in parts
    )
