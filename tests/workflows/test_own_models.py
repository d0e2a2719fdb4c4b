"""Experiments treat a changed file of a user's own model as another trial."""

import hashlib
from pathlib import Path

from workflows.prepared_tasks import files_named


def test_the_file_of_an_own_model_is_among_the_files_of_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_bytes(b"class Net: ...")
    assert files_named({"model": f"{path}:Net"}) == {"model": hashlib.sha256(b"class Net: ...").hexdigest()}
    assert files_named({"model": "nic"}) == {}
