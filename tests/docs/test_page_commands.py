"""The commands and Python programs of the pages run, page by page, in their order."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import CommandServer
from tests.docs import page_data
from tests.docs.page_commands import CHANGED, EXCLUDED, Changed, Excluded, change
from tests.docs.pages import CODE, ROOT, Code

# What a page expects beside the files of `page_data`, and the pages that begin in an empty directory.
PREPARED = {
    "README.md": [],
    "docs/benchmarks/extractors.md": [],
    "docs/explanation/model_inputs.md": ["S"],
    "docs/explanation/scale.md": [],
    "docs/get_started/installation.md": [],
    "docs/get_started/own_model.md": [],
    "docs/get_started/tutorial.md": [],
    "docs/how_to/captcha.md": ["captchas"],
    "docs/how_to/coming_from.md": ["captchas"],
    "docs/how_to/datasets.md": [],
    "docs/how_to/decoding.md": ["R", "R2"],
    "docs/how_to/download_datasets.md": ["captchas"],
    "docs/how_to/evaluation.md": ["S", "R", "R2"],
    "docs/how_to/experiments.md": [],
    "docs/how_to/export_store.md": [],
    "docs/how_to/extractors.md": [],
    "docs/how_to/gpu.md": ["S"],
    "docs/how_to/maintain_store.md": ["S"],
    "docs/how_to/pytorch_jax.md": ["S"],
    "docs/how_to/reproduce.md": [],
    "docs/how_to/report.md": ["S", "R"],
    "docs/how_to/retraining.md": ["demo"],
    "docs/how_to/runners.md": [],
    "docs/how_to/serve.md": ["R"],
    "docs/how_to/export_run.md": ["R"],
    "docs/how_to/tokenization.md": [],
    "docs/how_to/training.md": ["S"],
    "docs/how_to/your_data.md": ["captchas"],
    "docs/reference/metrics.md": [],
    "docs/reference/store_format.md": ["store"],
}
EMPTY = {"docs/get_started/own_model.md", "docs/get_started/tutorial.md"}
# `capt demo` does the same in a few seconds.
SMALL_DEMO = """
from workflows.demo import captchas, scenes
scenes.NUM_SCENES, scenes.NUM_UNSEEN, scenes.EPOCHS = 40, 10, 1
captchas.NUM_TRAIN, captchas.NUM_VAL, captchas.NUM_UNSEEN, captchas.EPOCHS = 20, 5, 5, 1
"""


def runnable(page: str) -> list[Code]:
    return [code for code in CODE[page] if not any(excluded.matches(code) for excluded in EXCLUDED)]


class Shell:
    """Runs code in a directory, each piece in a process of its own."""

    def __init__(self, commands: CommandServer) -> None:
        self._commands = commands
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        # On JAX, nearly all of the time goes into compiling, and half of that into optimizing.
        self._environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"

    def run(self, text: str, directory: Path, *, is_python: bool = False) -> None:
        """Runs one line of bash, or a Python program."""
        log = directory.parent / f"{directory.name}.log"
        arguments, output = ([], log) if is_python else _split(text, log)
        if is_python or arguments[0] == "capt":
            code = self._commands.start(
                None if is_python else arguments[1:],
                program=text if is_python else SMALL_DEMO,
                stdout=directory / output,
                stderr=log,
                cwd=directory,
            ).wait()
        else:
            with log.open("a") as file:
                code = subprocess.run(
                    ["bash", "-euc", text],
                    check=False,
                    cwd=directory,
                    env=self._environment,
                    stdout=file,
                    stderr=file,
                    timeout=300,
                ).returncode
        assert code == 0, f"{text}\n{log.read_text()[-4000:]}"


def _split(line: str, log: Path) -> tuple[list[str], Path]:
    """Returns the words of a command, and the file that it writes its output to."""
    words = shlex.split(line, comments=True)
    if ">" in words:
        return words[: words.index(">")], Path(words[words.index(">") + 1])
    return words, log


@pytest.fixture(scope="module")
def shell(commands: CommandServer) -> Shell:
    return Shell(commands)


@pytest.fixture(scope="module")
def prepared(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that `PREPARED` names, in one directory each, and `files`."""
    root = tmp_path_factory.mktemp("prepared")
    files, captchas, demo = (root / name for name in ("files", "captchas", "demo"))
    for directory in (files, captchas, demo):
        directory.mkdir()
    page_data.write_files(files)
    work = Path(shutil.copytree(files, root / "work"))

    def run(text: str) -> None:
        shell.run(change(Code("", "bash", text)), work)

    page_data.write_store(run)
    run("capt train captioner --store S --run-dir R --model soft_attention")
    shell.run("capt demo", demo)
    page_data.write_captchas(lambda text: shell.run(change(Code("", "bash", text)), captchas), captchas)
    shell.run(page_data.MODEL, files, is_python=True)
    for name, source in {"S": "S", "store": "S", "R": "R", "R2": "R"}.items():
        shutil.copytree(work / source, root / name / name)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in CODE if runnable(page)])
def test_the_code_of_a_page_runs_in_order(page: str, shell: Shell, prepared: Path, tmp_path: Path) -> None:
    directory = tmp_path / "page"
    directory.mkdir()
    for name in [] if page in EMPTY else ["files", *PREPARED[page]]:
        shutil.copytree(prepared / name, directory, dirs_exist_ok=True)
    for code in runnable(page):
        if code.file_name:
            (directory / code.file_name).write_text(change(code))
        elif code.language != "yaml":
            shell.run(change(code), directory, is_python=code.language == "python")


@pytest.mark.parametrize("excluded", EXCLUDED, ids=lambda excluded: excluded.pattern)
def test_an_exclusion_matches_a_command(excluded: Excluded) -> None:
    assert any(excluded.matches(code) for page in CODE.values() for code in page)


@pytest.mark.parametrize("changed", CHANGED, ids=lambda changed: changed.pattern)
def test_a_change_matches_a_command(changed: Changed) -> None:
    assert any(changed.apply(code) != code.text for page in CODE for code in runnable(page))


def test_every_page_with_code_states_what_it_expects() -> None:
    assert set(PREPARED) == {page for page in CODE if runnable(page)}
