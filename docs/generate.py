"""Writes the reference pages from the code, and the tutorial notebook as a page."""

import ast
import base64
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import capt
from features.store import CaptionTable, Dataset, FeatureTable, Store
from features.text.tokenizer import Tokenizer, Tokens
from schemas.errors import ExitCode
from schemas.options.commands import COMMANDS, GROUPS
from schemas.tables import ASSIGNED_SPLITS, CAPTIONS, CATALOG, FAILURES, FILE_NAMES, LABELS, REPORT
from trainer.config import CaptionerTraining, LoopConfig, RecognizerTraining
from trainer.data.caption_source import CaptionBatches, CaptionSource
from trainer.metrics import score
from trainer.models.configs import RecognizerConfig
from trainer.models.model_specs import MODELS
from trainer.runs.captioner_run import Caption, CaptionerRun
from trainer.runs.recognizer_run import RecognizerRun
from trainer.training.training_result import TrainingResult
from workflows.experiments.config import ExperimentConfig
from workflows.reproduction.recipe import (
    ExpectedScores,
    FetchedFiles,
    GeneratedData,
    Measurement,
    Recipe,
    RecipeData,
)
from workflows.retraining.config import RetrainConfig

ROOT = Path(__file__).parents[1]
COMMON = ("json", "quiet", "debug", "log_file", "config")
_TYPE = re.compile(r"^(?:(?:dict|tuple|sequence|iterable|mapping|str|int|float|bool|path-like|type)[\w\[\], ]*)\. ")
_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \w+)*)(?: \([^)]*\))?: +(.*)$")


def write_pages(directory: Path) -> None:
    """Writes all generated pages; an existing page with the same text is not written again.

    Args:
        directory: Directory of the pages. Created if it does not exist.
    """
    pages = {
        "command_line": _command_line(),
        "python_api": _python_api(),
        "json_output": _json_output(),
        "hyperparameters": _hyperparameters(),
        "experiment_file": _settings_page("Experiment file", ExperimentConfig),
        "recipe_file": _recipe_file(),
        "recipes": _recipes(),
        "retraining_file": _settings_page("Retraining file", RetrainConfig),
        "exit_codes": _exit_codes(),
        "columns": _columns(),
        "quickstart": _notebook(ROOT / "examples" / "notebooks" / "quickstart.ipynb", directory),
    }
    directory.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = directory / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# === Command line ===


def _command_line() -> str:
    application: Any = typer.main.get_command(capt.application())
    lines = ["# Command line", "", "Every command with its options, as `--help` prints them.", ""]
    lines += ["## Options of every command", "", *_options(application.commands["demo"], COMMON)]
    for command in COMMANDS:
        group, name = command.group, command.name.removeprefix(f"{command.group} ")
        if group and f"## capt {group}" not in lines:
            lines += [f"## capt {group}", "", GROUPS[group], ""]
        own = (application.commands[group] if group else application).commands[name]
        arguments = [one.metavar or one.name.upper() for one in own.params if one.param_type_name == "argument"]
        usage = " ".join(["capt", command.name, *arguments, "[OPTIONS]"])
        lines += [f"{'###' if group else '##'} capt {command.name}", "", inspect.cleandoc(own.help or ""), ""]
        lines += ["```text", usage, "```", "", *_options(own)]
    return "\n".join(lines)


def _options(command: Any, names: tuple[str, ...] = ()) -> Iterator[str]:
    shown = [one for one in command.params if (one.name in names if names else one.name not in (*COMMON, "help"))]
    if not shown:
        return
    yield from ("| option | meaning |", "|---|---|")
    for parameter in shown:
        name, meaning = parameter.get_help_record(command.context_class(command))
        name = name.partition(" ")[0] if parameter.param_type_name == "argument" else name
        yield f"| `{_cell(name)}` | {_prose(meaning)} |"
    yield ""


# === JSON output ===


def _json_output() -> str:
    lines = ["# JSON output", "", "With `--json`, the last line of standard output is one JSON object with these keys."]
    lines += ["In Python, every command returns the same object as a dictionary.", ""]
    for command in COMMANDS:
        sections = dict(_sections(_read_docstring(*command.runs.split(":"))))
        text = sections.get("Returns") or sections.get("") or ""
        lines += [f"## capt {command.name}", "", _prose(_TYPE.sub("", text.strip())), ""]
        for module, kind, method in re.findall(r"`((?:\w+\.)+\w+)\.([A-Z]\w+)\.(\w+)`", text):
            returns = dict(_sections(_read_docstring(module, method, kind))).get("Returns", "")
            lines += [f"`{kind}.{method}` returns: {_prose(returns)}", ""]
    return "\n".join(lines)


def _read_docstring(module: str, name: str, kind: str = "") -> str:
    """Returns the docstring of a function, or of a method of `kind`, without importing its module.

    Follows imports and `see` references.
    """
    base = ROOT / module.replace(".", "/")
    tree = ast.parse((base / "__init__.py" if base.is_dir() else base.with_suffix(".py")).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind]
    for node in classes[0].body if classes else tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            text = ast.get_docstring(node) or ""
            other = re.search(r"[:;] see `(\w+)`", text)
            return _read_docstring(module, other[1]) if other else text
        if isinstance(node, ast.ImportFrom) and name in [one.name for one in node.names]:
            return _read_docstring(str(node.module), name)
    return ""


# === Python ===


def _python_api() -> str:
    lines = ["# Python API", "", "Everything is importable from `capt` unless a module is named.", ""]
    lines += [
        "## Commands",
        "",
        "Each command is a function of `capt`. It returns the dictionary that `--json` prints.",
        "Training functions return a `TrainingResult`, which is this dictionary with the history of the run. Their",
        "`verbose` is 1 for progress bars and messages, 2 for messages only, or 0 for warnings only.",
    ]
    lines += ["The [command line](command_line.md) describes the options.", ""]
    for command in COMMANDS:
        signature = inspect.signature(getattr(capt, command.function))
        defaults = ", ".join(
            name if one.default is inspect.Parameter.empty else f"{name}={_default_text(one.default)}"
            for name, one in signature.parameters.items()
        )
        lines += [f"### capt.{command.function}", "", *_code(f"capt.{command.function}({defaults})")]
        lines += [inspect.cleandoc(command.options.__doc__ or ""), ""]
    lines += ["## Stores", "", *_function(capt.open_store, "capt.open_store")]
    for kind in (Store, Dataset, FeatureTable, CaptionTable):
        lines += _class(kind)
    lines += ["## Data for Keras", "", *_function(capt.keras_dataset, "capt.keras_dataset")]
    lines += ["## Data for PyTorch and Grain", "", *_function(capt.caption_source, "capt.caption_source")]
    for kind in (CaptionSource, CaptionBatches):
        lines += _class(kind)
    lines += ["## Tokens", ""]
    lines += [*_function(capt.pad_tokens, "capt.pad_tokens"), *_class(Tokenizer), *_class(Tokens)]
    lines += ["## Images", "", *_function(capt.open_image, "capt.open_image")]
    lines += ["## Training runs", "", *_function(capt.load_run, "capt.load_run")]
    for kind in (TrainingResult, CaptionerRun, Caption, RecognizerRun):
        lines += _class(kind)
    lines += ["## Metrics", "", *_function(score, "trainer.metrics.score")]
    return "\n".join(lines)


def _default_text(value: Any) -> str:
    return "…" if type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" else repr(value)


def _class(kind: type) -> Iterator[str]:
    yield from (f"### {kind.__name__}", "", f"`{kind.__module__}.{kind.__name__}`", "")
    yield from _docstring(kind)
    for name, member in inspect.getmembers(kind):
        is_described = bool(inspect.getdoc(member)) and not name.startswith("_")
        if is_described and inspect.isfunction(member):
            yield from _function(member, f"{kind.__name__}.{name}", 4)
        elif is_described and (isinstance(member, property) or type(member).__name__ == "cached_property"):
            yield from (f"#### {kind.__name__}.{name}", "", "Attribute.", "", *_docstring(member))


def _function(function: Any, name: str, level: int = 3) -> Iterator[str]:
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
    text = ", ".join(str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters)
    yield from (f"{'#' * level} {name}", "", *_code(f"{name}({text})"), *_docstring(function))


def _code(call: str, width: int = 90) -> Iterator[str]:
    """Returns a call as a code block, one argument per line if it is long."""
    name, _, arguments = call.removesuffix(")").partition("(")
    parts = "".join(f"    {one},\n" for one in re.split(r", (?=\w+=|\w+\b(?!\)))", arguments))
    yield from ("```python", call if len(call) <= width else f"{name}(\n{parts})", "```", "")


def _docstring(described: Any) -> Iterator[str]:
    """Returns a Google docstring as Markdown."""
    for title, text in _sections(inspect.getdoc(described) or ""):
        if not title:
            yield from (_prose(text), "")
        elif title == "Example":
            code = inspect.cleandoc(f"\n{text}")
            yield from ("```python", code, "```", "")
        else:
            yield from (f"**{title}**", "")
            entries = _entries(text)
            yield from (f"- `{name}`: {_prose(meaning)}" for name, meaning in entries.items())
            yield from ([] if entries else [_prose(text)])
            yield ""


def _sections(docstring: str) -> list[tuple[str, str]]:
    parts = re.split(r"(?m)^(Args|Attributes|Returns|Raises|Yields|Example|Examples|Call arguments):\s*$", docstring)
    titles = ["", *(one.removesuffix("s") if one == "Examples" else one for one in parts[1::2])]
    return [(title, text) for title, text in zip(titles, parts[::2], strict=True) if text.strip()]


def _entries(text: str) -> dict[str, str]:
    """Returns the `name: meaning` entries of a section; names that share an entry get one each."""
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(f"\n{text}").splitlines():
        match = _ENTRY.match(line)
        if match:
            names = match[1].split(", ")
            entries |= dict.fromkeys(names, _TYPE.sub("", match[2]))
        elif line.startswith(" ") and names:
            entries |= {name: f"{entries[name]} {line.strip()}" for name in names}
    return entries


# === Settings ===


def _hyperparameters() -> str:
    lines = ["# Hyperparameters", "", "`capt train --config FILE` reads these keys from YAML."]
    lines += ["`capt config MODEL` prints them with the defaults of a model. An unknown key is an error.", ""]
    lines += ["## Every model", "", *_fields(LoopConfig)]
    lines += ["## Every captioner", "", *_fields(CaptionerTraining, LoopConfig)]
    for name, spec in MODELS.items():
        lines += [f"## {name}", "", *_model_fields(spec.config)]
    lines += ["## recognizer", "", *_fields(RecognizerTraining, LoopConfig), *_model_fields(RecognizerConfig)]
    return "\n".join(lines)


def _model_fields(config: Any) -> Iterator[str]:
    if config.training_defaults:
        defaults = ", ".join(f"`{name}: {_yaml(value)}`" for name, value in config.training_defaults.items())
        yield from (f"Defaults that differ from those above: {defaults}.", "")
    yield from _fields(config)


def _settings_page(title: str, config: type[BaseModel]) -> str:
    about = "".join(text for name, text in _sections(inspect.getdoc(config) or "") if not name)
    return "\n".join([f"# {title}", "", _prose(about), "", *_fields(config)])


def _fields(config: type[BaseModel], base: type[BaseModel] | None = None) -> Iterator[str]:
    yield from ("| key | default | meaning |", "|---|---|---|", *_rows(config, base, ""), "")


def _rows(config: type[BaseModel], base: type[BaseModel] | None, prefix: str) -> Iterator[str]:
    meanings = _meanings(config)
    for name, field in config.model_fields.items():
        if base and name in base.model_fields:
            continue
        nested = field.annotation
        default = field.get_default(call_default_factory=True)
        if isinstance(nested, type) and issubclass(nested, BaseModel) and not _is_flat(nested):
            yield from _rows(nested, None, f"{prefix}{name}.")
            continue
        shown = "required" if default is PydanticUndefined else f"`{_yaml(default)}`"
        meaning = field.description or meanings.get(name, "")
        yield f"| `{prefix}{name}` | {_cell(shown)} | {_prose(meaning)}{_bounds(field)} |"


def _is_flat(config: type[BaseModel]) -> bool:
    """Returns whether all values of a config are numbers, so that one cell shows them."""
    return all(field.annotation == float | None for field in config.model_fields.values())


def _meanings(config: type[BaseModel]) -> dict[str, str]:
    """Returns the meaning of each field: from the docstrings of the config, its bases and its model."""
    found = _MODEL_DOCSTRINGS.get(config.__name__.removesuffix("Config"), {})
    for kind in reversed(config.__mro__):
        for title, text in _sections(inspect.cleandoc(kind.__dict__.get("__doc__") or "")):
            found = {**found, **(_entries(text) if title in ("Args", "Attributes") else {})}
    return found


def _model_docstrings() -> dict[str, dict[str, str]]:
    """Returns the `Args:` of the model classes by class name, without importing Keras."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((ROOT / "trainer" / "models").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                sections = dict(_sections(ast.get_docstring(node) or ""))
                found[node.name] = _entries(sections.get("Args", ""))
    return found


_MODEL_DOCSTRINGS = _model_docstrings()


def _bounds(field: Any) -> str:
    names = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [
        f"{words} {getattr(one, name)}" for one in field.metadata for name, words in names.items() if hasattr(one, name)
    ]
    return f" ({', '.join(limits)})" if limits else ""


def _yaml(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _recipe_file() -> str:
    page = _settings_page("Recipe file", Recipe)
    parts = [("data", RecipeData), ("data.fetch", FetchedFiles), ("data.synth", GeneratedData)]
    parts += [("expected", ExpectedScores), ("expected.measured", Measurement)]
    lines = ["", "Two further keys are not part of a complete recipe:", "", "| key | meaning |", "|---|---|"]
    lines += [
        "| `base` | Recipe whose keys are merged into this file: a name, or a file beside it. `data` are replaced as a "
        "whole. `description`, `expected` and `not_run` are not inherited. |",
        "| `published` | Bands around the published scores of the model: `dataset` (flickr8k, flickr30k or coco) and "
        "`tolerance`, as a fraction. |",
        "",
    ]
    for key, config in parts:
        lines += [f"## {key}", "", *_fields(config)]
    return "\n".join([page, *lines])


def _recipes() -> str:
    lines = ["# Recipes", "", "`capt reproduce --list` prints the recipes. [How to reproduce results]"]
    lines[-1] += "(../how_to/reproduce.md) describes the command. Bands are those of the split val, × 100."
    lines += ["", "| recipe | data | band | derivation | measured | minutes | GB |", "|---|---|---|---|---|---|---|"]
    for one in capt.reproduce(list=True)["recipes"]:
        expected = one["expected"] or {"scores": {}, "derivation": "–", "measured": None}
        bands = [f"{name} {100 * low:.1f}–{100 * high:.1f}" for name, (low, high) in expected["scores"].items()]
        measured = expected["measured"]
        origin = f"{measured['date']}, {measured['machine']}: `{measured['command']}`" if measured else one["not_run"]
        cells = (one["data"] or "–", ", ".join(bands) or "–", expected["derivation"], origin)
        numbers = ("–" if number is None else f"{number:,g}" for number in (one["minutes"], one["gigabytes"]))
        lines.append(f"| `{one['recipe']}` | {' | '.join([*map(_prose, cells), *numbers])} |")
    return "\n".join([*lines, ""])


# === Exit codes and columns ===


def _exit_codes() -> str:
    (node,) = [one for one in ast.walk(ast.parse(inspect.getsource(ExitCode))) if isinstance(one, ast.ClassDef)]
    meanings = {
        one.targets[0].id: inspect.cleandoc(after.value.value)
        for one, after in zip(node.body, node.body[1:], strict=False)
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }
    rows = [f"| {code.value} | `{code.name}` | {_prose(meanings[code.name])} |" for code in ExitCode]
    return "\n".join(["# Exit codes", "", "| code | name | meaning |", "|---|---|---|", *rows, ""])


def _columns() -> str:
    tables = (CAPTIONS, CATALOG, ASSIGNED_SPLITS, FILE_NAMES, LABELS, FAILURES, REPORT)
    lines = ["# Columns", "", "Columns of the Parquet files of a [store](../reference/store_format.md).", ""]
    for table in tables:
        lines += [f"## {table.name}", "", _prose(table.doc), "", table.doc_table().strip(), ""]
    return "\n".join(lines)


# === Notebook ===


def _notebook(path: Path, directory: Path) -> str:
    """Returns a notebook with its stored outputs as Markdown, and writes its images."""
    directory.mkdir(exist_ok=True)
    lines: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                image = directory / f"{path.stem}_{number}.png"
                image.write_bytes(base64.b64decode(data["image/png"]))
                lines += [f"![Output of the cell above]({image.name})", ""]
            elif text := "".join(data.get("text/plain", output.get("text", ""))):
                lines += ["```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


# === Markdown ===


def _prose(text: str) -> str:
    """Returns prose on one line, safe inside a table: text between backticks keeps its characters."""
    line = " ".join(text.split())
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(_cell(one) if one.startswith("`") else _escaped(one) for one in parts)


def _escaped(text: str) -> str:
    return re.sub(r"([<>\[\]*_|$])", r"\\\1", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
