"""Promotes runs of a registered model to champion and shows its decisions: `capt models`.

The champion is the run that the last commit names, so one log entry changes it. The files of the last `KEPT`
champions are kept for rollbacks. A decision is made from the log state at the moment of the commit, so no decision
undoes another one that it has not read.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.io.atomic_files import TEMP_PREFIX, describe_file, publish
from features.io.file_trees import files_below
from features.store.champions import ModelHistory, list_decisions
from features.store.commit_log import LogState
from features.store.corruption import has_valid_checksum
from features.store.layout import MODELS
from features.store.leases import lease, table_name
from features.store.store import Store, open_store
from schemas.errors import CorruptFileError, StoreError
from schemas.manifests import Decision, FileEntry, Manifest, ModelMetadata
from schemas.options.models import ModelsLs, ModelsPromote, ModelsRollback, ModelsShow

KEPT = 5
EVALUATION = "evaluation"
# Decisions about a run that was trained and evaluated.
FINISHED: tuple[Decision, ...] = ("promoted", "rejected", "stale")

_LOCK = ".lock"


class ChampionChangedError(StoreError):
    """The champion is another one than the decision was made against."""


class RegisteredModel(ModelHistory):
    """A model of a store, by name: its runs, its history and its champion.

    Args:
        store: Store. The store.
        name: str. The model's name; it need not have a commit.
    """

    def decide(self, facts: ModelMetadata) -> None:
        """Enter a decision that leaves the champion as it is, whatever `facts` say of it."""

        def decision(log_state: LogState) -> Manifest:
            kept = facts.model_copy(update={"champion": _champion(log_state)})
            return Manifest(table=self.name, facts=kept)

        with self._changing():
            self._log.update(decision)

    def promote(self, facts: ModelMetadata) -> str | None:
        """Make `facts.champion` the champion, by one commit that names its files; older champions are let go.

        Returns:
            The champion until then.

        Raises:
            CorruptFileError: a file of the run is not what an earlier commit of it says.
            StoreError: the run is not there.
        """
        return self._promote(facts, lambda before: None)

    def promote_over(self, champion: str | None, facts: ModelMetadata) -> str | None:
        """Does what `promote` does, if the champion is still the one that the decision was made against.

        Args:
            champion: The champion that the decision was made against; None if there was none.
            facts: What was decided.

        Returns:
            The champion until then.

        Raises:
            ChampionChangedError: The champion is another one.
            CorruptFileError: A file of the run is corrupt.
            StoreError: The run is not there.
        """

        def check(before: str | None) -> None:
            if before != champion:
                raise ChampionChangedError(
                    f"the champion changed from {champion or 'none'} to {before or 'none'} meanwhile",
                    location=str(self.root),
                    hint="see `capt models show`, and run the command again",
                )

        return self._promote(facts, check)

    def _promote(self, facts: ModelMetadata, check: Callable[[str | None], None]) -> str | None:
        assert facts.champion is not None
        before: list[str | None] = []

        with self._changing():
            check(self.champion)
            files = self._files(facts.champion)

            def promotion(log_state: LogState) -> Manifest:
                before[:] = [_champion(log_state)]
                check(before[0])
                return Manifest(table=self.name, facts=facts, files=files, replaces=_let_go(log_state, facts.champion))

            self._log.update(promotion)
        return before[0]

    def _changing(self) -> contextlib.AbstractContextManager[Path]:
        """A lease on the model: garbage collection deletes none of its files meanwhile."""
        return lease(self._store, "change", {table_name(self._store, self.root): ()})

    def _files(self, run: str) -> dict[str, FileEntry]:
        """The files of a run by path: as the commit has them that promoted it first, else as they are."""
        known = self.promoted_files(run)
        if not known:
            return self._written(run)
        damaged = [entry.path for entry in known.values() if not has_valid_checksum(self.root, entry)]
        if damaged:
            raise CorruptFileError(
                f"a file of the run {run} is damaged or gone",
                location=str(self.root / damaged[0]),
                hint="choose another with `capt models promote`",
            )
        return known

    def _written(self, run: str) -> dict[str, FileEntry]:
        """The files of a run as they are, durable now where the model is."""
        root = self.run_path(run)
        paths = list(_run_files(root)) if root.is_dir() else []
        if not paths:
            raise StoreError(
                f"the run {run} is not there", location=str(root), hint=f"it has: {', '.join(self.runs())}"
            )
        files = {path.relative_to(root).as_posix(): describe_file(path, self._here) for path in paths}
        for entry in files.values():
            publish(self.root / entry.path)
        return files


def list_registered_models(store: Store) -> list[RegisteredModel]:
    """The models of a store that have a history, by name."""
    logs = sorted((store.path / MODELS).glob("*/log"))
    return [RegisteredModel(store, log.parent.name) for log in logs if any(log.glob("*.json"))]


def current_time() -> str:
    """The present moment as `ModelMetadata.decided_at` has it."""
    return datetime.now(UTC).isoformat()


# === Commands ===


def list_models(options: ModelsLs) -> dict[str, Any]:
    """The models of a store.

    Args:
        options: The store.

    Returns:
        `store`, and in `models` for each: `name`, `task`, `champion` (its run), `since` (when it became that),
        `champion_dir` (its run directory), `decisions`, how many there were, and `last`, the last one.
    """
    opened = open_store(options.store)
    return {"store": str(opened.path), "models": [_entry(model) for model in list_registered_models(opened)]}


def show_model(options: ModelsShow) -> dict[str, Any]:
    """One model: what `list_models` says of it, and its `history`, oldest first; its champion is downloaded.

    Args:
        options: The store and the model.

    Returns:
        The entry, and `history`: for each decision `number`, `decision`, `run`, `champion`, `reasons`, `decided_at` and
        `lineage`.

    Raises:
        StoreError: there is no such model, or several and none is named.
    """
    model = _named(open_store(options.store), options.model_name)
    history = [{"number": one.number, **one.facts.model_dump(mode="json", exclude={"kind"})} for one in model.history()]
    if model.champion:
        model.ensure_local(model.champion)
    return {**_entry(model), "history": history}


def promote_model(options: ModelsPromote) -> dict[str, Any]:
    """Make a run the champion, whatever a retraining decided of it.

    Args:
        options: The store, the model, and the run: one that was trained and evaluated before.

    Returns:
        `name`, `champion` and `before`, the champion until now.

    Raises:
        StoreError: there is no such run, or its files are gone.
        CorruptFileError: its files are damaged.
    """
    model = _named(open_store(options.store), options.model_name)
    decided = [one for one in model.history() if one.facts.decision in FINISHED]
    names = list(dict.fromkeys(one.facts.run for one in decided if one.facts.run))
    fitting = [name for name in names if name.startswith(options.run)]
    if len(fitting) != 1:
        message = "several finished runs have" if fitting else "no finished run has"
        raise StoreError(
            f"{message} a name like {options.run!r}",
            location=str(model.root),
            hint=f"it has: {', '.join(names) or 'none'}",
        )
    facts = _chosen(model, fitting[0], "chosen", "chosen by hand")
    return {"name": model.name, "champion": facts.champion, "before": model.promote(facts)}


def rollback_model(options: ModelsRollback) -> dict[str, Any]:
    """Make the champion before the present one the champion again.

    Args:
        options: The store and the model.

    Returns:
        As `promote_model`.

    Raises:
        StoreError: there was no champion before.
        ChampionChangedError: another command changed the champion meanwhile.
        CorruptFileError: its files are damaged.
    """
    model = _named(open_store(options.store), options.model_name)
    # What was rolled back is no champion to go back to: a second rollback goes one further.
    stack: list[str] = []
    for one in model.history():
        champion = one.facts.champion
        if champion is not None and (not stack or stack[-1] != champion):
            if one.facts.decision == "rolled_back" and champion in stack:
                del stack[stack.index(champion) + 1 :]
            else:
                stack.append(champion)
    if len(stack) < 2:
        raise StoreError("there is no champion before this one", location=str(model.root))
    facts = _chosen(model, stack[-2], "rolled_back", f"rolled back from {stack[-1]}")
    return {"name": model.name, "champion": facts.champion, "before": model.promote_over(stack[-1], facts)}


def print_models(result: dict[str, Any]) -> None:
    """Print what `list_models` returned."""
    from schemas.terminal.console import Printer

    printer = Printer()
    rows = [
        [one["name"], one["task"], one["champion"] or "", (one["since"] or "")[:16], one["last"]]
        for one in result["models"]
    ]
    printer.table(f"models in {result['store']}", ("name", "task", "champion", "since", "last"), (), rows)


def print_model(result: dict[str, Any]) -> None:
    """Print what `show_model` returned."""
    from schemas.terminal.console import Printer

    printer = Printer()
    rows = [
        [str(one["number"]), one["decided_at"][:16], one["decision"], one["run"] or "", "; ".join(one["reasons"])]
        for one in result["history"]
    ]
    printer.table(result["name"], ("", "decided at", "decision", "run", "reasons"), (), rows)
    printer.line(f"champion: {result['champion_dir'] or 'none yet'}")


def _chosen(model: RegisteredModel, run: str, decision: Decision, reason: str) -> ModelMetadata:
    """A person's decision that makes a run the champion."""
    task = model.history()[-1].facts.task
    return ModelMetadata(
        task=task, decision=decision, run=run, champion=run, reasons=(reason,), decided_at=current_time()
    )


def _champion(log_state: LogState) -> str | None:
    """The champion that a model's log names last; None if there is none.

    Raises:
        StoreError: A manifest cannot be read that may name it.
    """
    for digest in log_state.blocking:
        raise log_state.unreadable[digest]
    decisions = list_decisions(log_state)
    return decisions[-1].facts.champion if decisions else None


def _let_go(log_state: LogState, champion: str | None) -> tuple[str, ...]:
    """The commits of champions that are too old to be kept once another run is the champion."""
    others = list(
        dict.fromkeys(one.facts.champion for one in reversed(list_decisions(log_state)) if one.facts.champion)
    )
    kept = {champion, *[run for run in others if run != champion][: KEPT - 1]}
    return tuple(
        manifest.digest
        for manifest in log_state.live
        if isinstance(manifest.facts, ModelMetadata) and manifest.files and manifest.facts.champion not in kept
    )


def _entry(model: RegisteredModel) -> dict[str, Any]:
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


def _named(store: Store, name: str | None) -> RegisteredModel:
    models = list_registered_models(store)
    fitting = [model for model in models if name in (None, model.name)]
    if len(fitting) != 1:
        names = ", ".join(model.name for model in models) or "none; `capt retrain` makes one"
        message = (
            "there are several models" if fitting else f"there is no model {name!r}" if name else "there is no model"
        )
        raise StoreError(message, location=str(store.path), hint=f"name one with --model-name: {names}")
    return fitting[0]


def _run_files(root: Path) -> Iterator[Path]:
    for path in files_below(root):
        parts: Sequence[str] = path.relative_to(root).parts
        if parts[0] not in (EVALUATION, _LOCK) and not any(part.startswith(TEMP_PREFIX) for part in parts):
            yield path
