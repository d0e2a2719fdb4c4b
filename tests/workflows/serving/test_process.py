"""`capt serve` as a process: it prints its URL, and finishes the requests in progress when it is stopped."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.commands import CommandServer
from tests.workflows.serving.http_client import Client

# A batch takes a second, so that a request is in progress when the process is stopped.
SLOW_BATCHES = """
import time
from workflows.serving.served_model import ServedModel
compute = ServedModel._compute
ServedModel._compute = lambda self, requests: (time.sleep(1), compute(self, requests))[1]
"""


def wait_for_url(output: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if output.exists() and (text := output.read_text()).endswith("\n"):
            return str(json.loads(text)["url"])
        time.sleep(0.05)
    raise TimeoutError


def test_sigterm_ends_the_server_after_the_requests_in_progress(
    commands: CommandServer, captcha_run: Path, captchas, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    arguments = ["serve", str(captcha_run), "--port", "0", "--json"]
    process = commands.start(arguments, program=SLOW_BATCHES, stdout=output, stderr=tmp_path / "errors")
    client = Client(wait_for_url(output))
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(client.send, "v1/recognize", captchas[0].data)
        while not client.metric("capt_requests_in_progress", path="/v1/recognize"):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        assert request.result().status == 200
    assert process.wait() == 0
    assert (tmp_path / "errors").read_text() == ""
