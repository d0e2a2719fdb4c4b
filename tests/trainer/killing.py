"""Training runs in processes of their own, killed for real once they have got somewhere."""

import json
import os
import subprocess
import sys
import time

from trainer.runs.checkpoints import Checkpoints

PROGRAM = """
import json, sys
import capt
store, run, options = sys.argv[1:]
capt.train_captioner(store=store, run_dir=run, **json.loads(options))
"""
RECOGNIZER_INPUT = PROGRAM.replace("train_captioner", "train_captcha")


def start(store, run, program=PROGRAM, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program, str(store.path), str(run), json.dumps(options)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def fork(commands, store, run, **options):
    """As `start`, without the time for imports."""
    arguments = ["capt", str(store.path), str(run), json.dumps(options)]
    return commands.start(None, program=f"import sys\nsys.argv = {arguments!r}\n{PROGRAM}")


def kill_after(process, run, epoch, step):
    """SIGKILL once the run has a checkpoint that far; where the run stood then."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        state = Checkpoints(run / "checkpoints").state()
        if state and (state.progress.epoch, state.progress.step) >= (epoch, step):
            process.kill()
            process.wait()
            return Checkpoints(run / "checkpoints").state().progress
        time.sleep(0.002)
    raise AssertionError(f"not killed: {process.communicate()[1].decode()[-2000:]}")
