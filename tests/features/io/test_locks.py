"""A lock has one holder, names it, and ends with its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.io.locks import LockedError, hold_lock

PROGRAM = """
import sys, time
from pathlib import Path
from features.io.locks import hold_lock
with hold_lock(Path(sys.argv[1]), "trying locks"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_locked_error_names_the_holder_and_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "below" / "lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"process {holder.pid} on .* has been trying locks since 20"):
            hold_lock(path, "waiting").__enter__()
        assert LockedError.exit_code == 5
    finally:
        holder.kill()
        holder.wait()
    with hold_lock(path, "going on"):
        pass
