"""Finds and reads recipes: those of the package by name, and others by file.

recipes/NAME.yaml           a recipe
recipes/A-MODEL-B.yaml      a template: one recipe per captioner, whose name replaces MODEL
recipes/base/NAME.yaml      keys that several recipes share: `base: NAME`
recipes/NAME.sha256         checksums of images
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from schemas.choices import PublishedDataset
from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.options.training import CaptionerName
from schemas.yaml_file import read_settings
from trainer.evaluation.published import METRICS, read_published
from workflows.reproduction.recipe import Recipe

CAPTIONERS: tuple[str, ...] = get_args(CaptionerName)
MODEL = "MODEL"
SUFFIXES = (".yaml", ".yml")

_DIRECTORY = Path(str(files("workflows.reproduction").joinpath("recipes")))
_BASE, _PUBLISHED, _DATA = "base", "published", "data"
# A recipe does not inherit these keys: scores belong to the settings that they were measured with.
_OWN = ("description", "expected", "not_run")
_MAX_BASES = 10


class _PublishedBands(Settings):
    """Bands around the published scores of the model on a dataset, as fractions."""

    dataset: PublishedDataset
    tolerance: float


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe with its name and file. The members are those of an ensemble, or the recipe itself.

    `base` is the recipe that it is based on, if that is a whole recipe.
    """

    name: str
    path: Path
    recipe: Recipe
    ensemble: tuple["NamedRecipe", ...] = ()
    base: "NamedRecipe | None" = None

    @property
    def members(self) -> "tuple[NamedRecipe, ...]":
        return self.ensemble or (self,)

    @property
    def checksums(self) -> Path | None:
        """The file with the checksums of the images: beside the recipe, or one of the package."""
        data = self.members[0].recipe.data
        if data is None or data.checksums is None:
            return None
        beside = self.members[0].path.parent / data.checksums
        return beside if beside.exists() else _DIRECTORY / data.checksums

    def trained_by(self, stage: int) -> str:
        """Returns the name of the recipe whose run is that of a stage, from 1.

        A base with equal tables and equal stages up to this one trains the same run. The last run of a recipe is its
        own, because its evaluation is written there.
        """
        base, own = self.base, self.recipe
        if base is None or stage == len(own.stages) or not own.has_tables_of(base.recipe):
            return self.name
        stages = base.recipe.list_stages()[:stage]
        is_same = len(stages) == stage and stages == own.list_stages()[:stage]
        return base.trained_by(stage) if is_same else self.name

    def resolve(self) -> dict[str, Any]:
        """Returns the complete settings, in the form of a recipe file."""
        return self.recipe.resolve()


def list_names() -> list[str]:
    """Lists the names of the package's recipes."""
    return sorted(name for path in _DIRECTORY.glob("*.yaml") for name in _expand(path.stem))


def find_recipe(name: str) -> NamedRecipe:
    """Reads and checks a recipe of the package by name, or a recipe file by path.

    Raises:
        UsageError: There is no such recipe, its file cannot be read, or a key, option or value is invalid.
    """
    return _find(name)


def _find(name: str, ensemble: str = "") -> NamedRecipe:
    """Reads a recipe; `ensemble` is the file of the ensemble that has it as a member."""
    path, model = _find_file(name)
    entries = _read_entries(path, model)
    base = entries.pop(_BASE, None)
    published = entries.pop(_PUBLISHED, None)
    recipe = _parse(entries, str(path))
    if published and not recipe.expected:
        recipe = _parse({**entries, "expected": _cite(published, recipe.model, str(path))}, str(path))
    recipe.check(str(path))
    if recipe.ensemble and ensemble:
        raise UsageError(f"the member {name} is an ensemble", location=ensemble, hint="Name its members.")
    named = NamedRecipe(path.stem if name.endswith(SUFFIXES) else name, path, recipe)
    members = tuple(_find_members(recipe, path))
    return replace(named, ensemble=members, base=_find_base(base, path))


def _find_base(base: str | None, path: Path) -> NamedRecipe | None:
    """Reads the recipe that another one is based on; None if the base has only keys that recipes share."""
    if base is None or _is_shared(base):
        return None
    try:
        return _find(next(_locate((base,), path)))
    except UsageError:  # incomplete alone
        return None


def _expand(stem: str) -> list[str]:
    return [stem.replace(MODEL, model) for model in CAPTIONERS] if MODEL in stem else [stem]


def _find_file(name: str) -> tuple[Path, str]:
    """Returns the file of a recipe, and the captioner that replaces MODEL in it; empty if it is not a template."""
    if name.endswith(SUFFIXES):
        return Path(name), ""
    if (path := _DIRECTORY / f"{name}.yaml").is_file() and MODEL not in name and "/" not in name:
        return path, ""
    for path in _DIRECTORY.glob(f"*{MODEL}*.yaml"):
        for model in CAPTIONERS:
            if path.stem.replace(MODEL, model) == name:
                return path, model
    similar = difflib.get_close_matches(name, list_names(), 3, 0.4)
    hint = f"Use {', '.join(similar)}, for example. " if similar else ""
    hint += "`capt reproduce --list` lists the recipes. A recipe file of your own ends with .yaml."
    raise UsageError(f"there is no recipe {name!r}", location="RECIPE", hint=hint)


def _shared_path(base: str) -> Path:
    return _DIRECTORY / _BASE / f"{base}.yaml"


def _is_shared(base: str) -> bool:
    """Returns whether a base is not a recipe, but a file of keys that several recipes share."""
    return _shared_path(base).is_file()


def _locate(names: tuple[str, ...], path: Path) -> Iterator[str]:
    """Yields the names of other recipes in a recipe file; paths are relative to its directory."""
    for name in names:
        yield str(path.parent / name) if name.endswith(SUFFIXES) else name


def _read_entries(path: Path, model: str, depth: int = 0) -> dict[str, Any]:
    """Returns the keys of a recipe file, merged into those of its bases."""
    if depth == _MAX_BASES:
        raise UsageError(f"more than {_MAX_BASES} recipes are based on each other", location=str(path))
    entries = read_settings(path)
    if model:
        entries = _replace_model(entries, model)
    base = entries.get(_BASE)
    if base is None:
        return entries
    if not isinstance(base, str):
        raise UsageError("base: expected the name of a recipe", location=str(path), hint="Write `base: NAME`.")
    other = (_shared_path(base), model) if _is_shared(base) else _find_file(next(_locate((base,), path)))
    inherited = _read_entries(*other, depth + 1)
    return _merge({key: value for key, value in inherited.items() if key not in (*_OWN, _PUBLISHED)}, entries)


def _merge(base: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Merges mappings key by key. Other values replace those of the base, and so do `data`, which belong together."""
    merged = dict(base)
    for key, value in entries.items():
        other = None if key == _DATA else base.get(key)
        merged[key] = _merge(other, value) if isinstance(value, Mapping) and isinstance(other, Mapping) else value
    return merged


def _replace_model(value: Any, model: str) -> Any:
    if isinstance(value, str):
        return value.replace(MODEL, model)
    if isinstance(value, dict):
        return {key: _replace_model(one, model) for key, one in value.items()}
    return [_replace_model(one, model) for one in value] if isinstance(value, list) else value


def _parse(entries: Mapping[str, Any], location: str) -> Recipe:
    try:
        return Recipe(**entries)
    except ValidationError as error:
        raise _to_usage_error(error, Recipe, location) from None


def _to_usage_error(error: ValidationError, kind: type[Settings], location: str) -> UsageError:
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = kind.model_fields if len(first["loc"]) == 1 else ()
        hint = f"Use one of {', '.join(known)}." if known else "Remove the key."
        return UsageError(f"unknown key {key!r}", location=location, hint=hint)
    if first["type"] == "missing":
        return UsageError(f"the key {key!r} is missing", location=location, hint=f"Add `{first['loc'][-1]}:`.")
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return UsageError(f"{key}: {message}{got}", location=location)


def _cite(published: Any, model: str | None, location: str) -> dict[str, Any] | None:
    """Returns `expected` with bands around the published scores of a model; None if no paper states any."""
    try:
        bands = _PublishedBands(**published)
    except (ValidationError, TypeError):
        hint = "Write `published: {dataset: coco, tolerance: 0.05}`, for example."
        raise UsageError("published: invalid value", location=location, hint=hint) from None
    rows = [row for row in read_published()[bands.dataset] if row.model.lower().replace(" ", "_") == model]
    if not rows:
        return None
    values = {name: getattr(rows[0], name) for name in METRICS}
    scores = {
        name: [round(value / 100 - bands.tolerance, 4), round(value / 100 + bands.tolerance, 4)]
        for name, value in values.items()
        if value is not None
    }
    bleu = f", BLEU {rows[0].bleu}" if "bleu_1" in scores else ""
    derivation = f"{rows[0].source}: published score on test ± {100 * bands.tolerance:g} points{bleu}"
    return {"scores": scores, "derivation": derivation}


def _find_members(recipe: Recipe, path: Path) -> Iterator[NamedRecipe]:
    """Reads the members of an ensemble; UsageError if they differ in task, data or captions."""
    first: NamedRecipe | None = None
    for name in _locate(recipe.ensemble, path):
        member = _find(name, str(path))
        first = first or member
        if member.recipe.task != recipe.task:
            hint = f"Set `task: {member.recipe.task}`."
            raise UsageError(f"{name} has the task {member.recipe.task}", location=str(path), hint=hint)
        if (first.recipe.data, first.recipe.captions) != (member.recipe.data, member.recipe.captions):
            message = f"{member.name} has other data or captions than {first.name}"
            raise UsageError(message, location=str(path), hint="Choose members with equal data and captions.")
        yield member
