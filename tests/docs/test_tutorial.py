"""The commands of the tutorial run, in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "get_started" / "tutorial.md"


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run_in_order(tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    # The commands are those beside this interpreter.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", "\n".join(blocks)], cwd=tmp_path, env=environment, check=True, timeout=900)
    assert (tmp_path / "run" / "evaluation" / "val" / "scores.json").is_file()
    assert (tmp_path / "served" / "saved_model.pb").is_file()
