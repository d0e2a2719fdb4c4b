"""Provides the commands, `capt prepare features --store S …`, also as functions, `capt.prepare_features(store=S, …)`.

Both accept the same options; a function returns the object that `--json` prints. Commands import heavy packages late.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect as introspection  # `capt.inspect` is a command
import json as jsonlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from schemas.errors import ACCESS_DENIED, CaptError, ExitCode, UsageError
from schemas.options.base import Options
from schemas.options.command_line import HELP_NAMES, to_parameter
from schemas.options.commands import COMMANDS, GROUPS, Command
from schemas.service import Service
from schemas.terminal.logs import start_logging
from schemas.terminal.printable import printable

if TYPE_CHECKING:
    from features.inputs.named_image import open_image
    from features.store import Store
    from features.text.padding import pad_tokens
    from trainer.data.caption_source import caption_source
    from trainer.data.keras_dataset import keras_dataset
    from trainer.runs.captioner_run import CaptionerRun
    from trainer.runs.recognizer_run import RecognizerRun

__version__ = "0.1.0"

_FUNCTIONS = {command.function: command for command in COMMANDS}

# Further functions, whose modules import TensorFlow or NumPy.
_LIBRARY = {
    "caption_source": "trainer.data.caption_source:caption_source",
    "keras_dataset": "trainer.data.keras_dataset:keras_dataset",
    "open_image": "features.inputs.named_image:open_image",
    "pad_tokens": "features.text.padding:pad_tokens",
}

__all__ = [  # noqa: PLE0604
    "CaptError",
    "UsageError",
    "caption_source",
    "keras_dataset",
    "load_run",
    "open_image",
    "open_store",
    "pad_tokens",
    *_FUNCTIONS,
]


_VERBOSE = introspection.Parameter("verbose", introspection.Parameter.KEYWORD_ONLY, default=1, annotation=int)


def open_store(path: str | Path) -> Store:
    """Opens the store in a directory or at a URI; see `features.store`."""
    from features import store

    return store.open_store(path)


def load_run(path: str | Path, epoch: int | None = None) -> CaptionerRun | RecognizerRun:
    """Loads a training run: `load_run(R).caption(image)`, `load_run(R).recognize(image)`.

    `epoch` selects the weights of an epoch that the run has kept (`keep_epochs`); None selects the best epoch.
    """
    from trainer.runs import run as runs

    return runs.load_run(path, epoch)


def __getattr__(name: str) -> Callable[..., Any]:
    """Returns a command as a function: `capt.prepare_features(store=S, …)`; or a function of `_LIBRARY`."""
    if name in _LIBRARY:
        return _load(_LIBRARY[name])
    command = _FUNCTIONS.get(name)
    if command is None:
        raise AttributeError(f"module 'capt' has no attribute {name!r}")
    return _function(command)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS, *_LIBRARY})


def _function(command: Command) -> Callable[..., dict[str, Any]]:
    """Returns the function of a command; its options are in the order of the help, the required ones first."""
    command.options.model_rebuild()  # Its signature is built with its validators.
    shown, kinds = introspection.signature(command.options).parameters, get_type_hints(command.options)
    names = [name for name, _, _ in command.options.declared()]
    either = introspection.Parameter.POSITIONAL_OR_KEYWORD
    ordered = [shown[name].replace(kind=either, annotation=kinds[name]) for name in names]
    ordered += [shown[name] for name in shown if name not in names]
    ordered.sort(key=lambda one: one.default is not introspection.Parameter.empty)
    is_training = {"hyperparameters", "run_dir"} <= command.options.model_fields.keys()
    if is_training:
        ordered.append(_VERBOSE)
    signature = introspection.Signature(ordered)

    def run(*values: Any, **options: Any) -> dict[str, Any]:
        # Values without a name are those of the first options.
        named = {**signature.bind_partial(*values).arguments, **options}
        verbose = named.pop("verbose", 1) if is_training else 1
        parsed = command.options.parse(named)
        with _load("schemas.terminal.python_output:show_output")(verbose) if is_training else contextlib.nullcontext():
            return _run(command, parsed)

    run.__name__ = run.__qualname__ = command.function
    run.__doc__ = command.options.__doc__
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


def _run(command: Command, options: Options) -> dict[str, Any]:
    with _load("features.runtime.keras_backend:use_backend")(getattr(options, "backend", None)):
        result: dict[str, Any] = _load(command.runs)(options)
    return result


# === The command line ===


def main() -> None:
    """Runs the command line."""
    application()()


def application() -> typer.Typer:
    """Returns the command line, generated from `COMMANDS`."""
    app = _group("Prepare image-caption datasets once, and train captioning models on them many times.")

    @app.callback(cls=_InOrder)
    def callback(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
        ] = False,
    ) -> None: ...

    groups = {name: _group(summary) for name, summary in GROUPS.items()}
    for name, group in groups.items():
        app.add_typer(group, name=name)
    for command in COMMANDS:
        summary = introspection.cleandoc(command.options.__doc__ or "").partition("\n")[0]
        group = groups[command.group] if command.group else app
        name = command.name.removeprefix(f"{command.group} ")
        group.command(name, cls=_PlainArguments, short_help=summary)(_entry(command))
    return app


class _InOrder(TyperGroup):
    """Lists commands and groups in the order of `COMMANDS`. A command outside groups may have two words."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys(command.group or command.name for command in COMMANDS))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        words = " ".join(args[:2])
        return super().resolve_command(ctx, [words, *args[2:]] if words in self.commands else args)


class _PlainArguments(TyperCommand):
    """Shows arguments without their Python types, and required ones without brackets."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        usage = " ".join(super().collect_usage_pieces(ctx))
        for one in self.params:
            if "[required]" in str(getattr(one, "help", "")):
                usage = usage.replace(f"[{one.metavar}]", str(one.metavar))
        return usage.split(" ")

    def get_help(self, ctx: Any) -> str:
        return re.sub(r" <(list\[)?str\]?>", lambda shown: " " * len(shown[0]), super().get_help(ctx))


def _group(summary: str) -> typer.Typer:
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich markup would remove a text in brackets
        context_settings=HELP_NAMES,
    )


def _show_version(version: bool) -> None:
    if version:
        print(f"capt {__version__}")
        raise typer.Exit


_PRINT_SUMMARY = "schemas.terminal.summary:print_summary"


def _entry(command: Command) -> Callable[..., None]:
    """Returns the function that Typer calls: its parameters are the options of the command and the common ones."""

    def run(json: bool, quiet: bool, debug: bool, log_file: str | None, config: str | None, **options: Any) -> None:
        given = {name: value for name, value in options.items() if not (value is None or value is False or value == [])}
        print_result = _choose_printer(command, json=json, quiet=quiet)
        with _one_line_errors(debug, print_result):
            from_file = (
                command.options.named(_load("schemas.yaml_file:read_settings")(config), config) if config else {}
            )
            parsed = command.options.parse({**from_file, **given}, config or "")
            start_logging(quiet, debug, log_file)
            result = _run(command, parsed)
            print_result(result)
            if isinstance(result, Service):
                sys.stdout.flush()
                result.wait()

    parameters = [*(to_parameter(*one) for one in command.options.declared()), *_common_options(command)]
    run.__signature__ = introspection.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = command.options.__doc__
    return run


def _choose_printer(command: Command, *, json: bool, quiet: bool) -> Callable[[Mapping[str, Any]], None]:
    """Returns the function that prints a result, also the partial one of an error."""

    def print_result(result: Mapping[str, Any]) -> None:
        if json:
            print(jsonlib.dumps(result))
        elif not quiet:
            module = "" if ":" in command.prints else f"{command.runs.partition(':')[0]}:"
            _load(module + command.prints if command.prints else _PRINT_SUMMARY)(result)

    return print_result


def _common_options(command: Command) -> Iterator[introspection.Parameter]:
    """Yields the options that every command has."""
    values = f"option values{' and hyperparameters' if 'hyperparameters' in command.options.model_fields else ''}"
    quiet = "Do not print the result, progress or informational messages. Warnings and errors are still printed, and "
    for metavar, text, *names in (
        (None, "Print the result as one line of JSON on standard output.", "--json"),
        (None, f"{quiet}--json still prints the result.", "--quiet", "-q"),
        (None, "Show debug messages, library output and tracebacks.", "--debug"),
        ("FILE", "File to append log messages to, in addition to standard error.", "--log-file"),
        ("FILE", f"YAML file to read {values} from. Command-line options take precedence.", "--config"),
    ):
        option = typer.Option(*names, metavar=metavar, help=text)
        default, kind = (None, str | None) if metavar else (False, bool)
        name = names[0].removeprefix("--").replace("-", "_")
        yield introspection.Parameter(
            name, introspection.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


def _load(reference: str) -> Callable[..., Any]:
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


# === Errors ===


@contextlib.contextmanager
def _one_line_errors(debug: bool, print_result: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    try:
        yield
    except CaptError as error:
        # The error must be printed even if nobody reads the partial result.
        with contextlib.suppress(OSError):
            if error.summary is not None:
                print_result(error.summary)
        _print_error(str(error), debug)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _print_error("Interrupted. The same command resumes.", debug)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except Exception as error:
        _print_error(_describe(error), debug)
        raise typer.Exit(ExitCode.FAILED) from None


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in ACCESS_DENIED:
        return f"{error.filename}: {error.strerror}. Check its permissions, or choose another path."
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name!r}, which this command needs, is not installed. Install capt's dependencies."
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]}. --debug shows where."


def _print_error(line: str, debug: bool) -> None:
    if debug:
        print(printable(traceback.format_exc()), file=sys.stderr, end="")
    print(printable(f"capt: {line}"), file=sys.stderr)
    logging.getLogger("capt").debug(line, exc_info=True)


if __name__ == "__main__":
    main()
