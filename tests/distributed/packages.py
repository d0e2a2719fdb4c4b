"""Engines' packages, fetched once by name from where such packages are published: Go's modules and Maven's.

    <engines>/prism-<version>/prism    github.com/apache/beam/sdks/v2/go/cmd/prism, of Beam's version
    <engines>/flink/*.jar              what flink.xml names, and what that needs
    <engines>/spark/*.jar              what spark.xml names, and what that needs

<engines> is `.engines` beside the tests, or what CAPT_ENGINES names.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import apache_beam

HERE = Path(__file__).parent
ENGINES = Path(os.environ.get("CAPT_ENGINES", HERE.parents[1] / ".engines"))
_PRISM = "github.com/apache/beam/sdks/v2/go/cmd/prism"
_FETCH_SECONDS = 1800


def fetch_prism() -> Path:
    """The program, built by Go unless it is there."""
    program = ENGINES / f"prism-{apache_beam.__version__}" / "prism"
    if not program.exists():
        module = f"{_PRISM}@v{apache_beam.__version__}"
        _run(["go", "install", module], {"GOBIN": str(program.parent)})
    return program


def fetch_jars(name: str) -> Path:
    """The folder of the jars that `<name>.xml` names and of what these need, brought by Maven unless it is there."""
    asked = HERE / f"{name}.xml"
    digest = hashlib.sha256(asked.read_bytes()).hexdigest()
    folder, done = ENGINES / name, ENGINES / f"{name}.sha256"
    if not done.is_file() or done.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
        _run(["mvn", "--batch-mode", "--quiet", "--file", str(asked), *copy], {})
        done.write_text(digest)
    return folder


def _run(command: list[str], environment: dict[str, str]) -> None:
    ENGINES.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        command,
        check=False,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_FETCH_SECONDS,
    )
    assert made.returncode == 0, f"{command[0]}: {(made.stdout + made.stderr)[-2000:]}"
