import os
import pty
import subprocess
import sys
import time

import pytest

from trainer.training.training_loop import EtaEstimator

COMMAND = [sys.executable, "-c", "import capt; capt.main()", "train", "captcha"]


def shown_by(command, environment):
    """What a command writes to a terminal."""
    terminal, its_side = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdin=its_side, stdout=its_side, stderr=its_side)
    os.close(its_side)
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        parts.append(part)
    os.close(terminal)
    assert process.wait() == 0, b"".join(parts)[-2000:]
    return b"".join(parts).decode(errors="replace")


@pytest.mark.slow
def test_a_terminal_shows_images_per_second_and_the_remaining_time(words_store, tmp_path):
    from tests.trainer.words import SMALL

    config = tmp_path / "small.yaml"
    config.write_text("".join(f"{name}: {list(v) if isinstance(v, tuple) else v}\n" for name, v in SMALL.items()))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "COLUMNS": "120",
        "TERM": "xterm",
    }
    options = ["--store", str(words_store.path), "--run-dir", str(tmp_path / "run"), "--epochs", "3"]
    shown = shown_by([*COMMAND, *options, "--config", str(config)], environment)
    assert "epoch 1 of 3" in shown
    assert "images/s" in shown
    assert " left" in shown
    assert "exact_match" in shown


def test_the_remaining_time_is_estimated_from_finished_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = EtaEstimator(10, 30)
    assert pace.left(10) == ""
    now[0] = 110.0
    assert pace.left(15) == "30 s left"
    now[0] = 400.0
    assert pace.left(20) == "5 min left"
    assert pace.left(30) == ""
