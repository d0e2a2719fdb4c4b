"""Worker processes of the local runner: one that is lost ends its job.

FnApiRunner with `--direct_running_mode=multi_processing` starts worker processes and waits for their answers, of one
that was killed for ever. Here the loss answers what the worker was asked.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    BeamFnControlServicer,
    SubprocessSdkWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

_POLL_SECONDS = 0.1

_log = logging.getLogger("capt.prepare")


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class WatchedWorkerHandler(SubprocessSdkWorkerHandler):  # type: ignore[misc]
    """Starts a worker process; takes the place of Beam's own."""

    def start_worker(self) -> None:
        """Start the process, and a thread that waits for its end."""
        self._is_lost = False
        self._stopping = threading.Event()
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._watch)
        self.worker_thread.start()

    def close(self) -> None:
        """Close the connection and wait for the process to end."""
        self._stopping.set()
        # Beam tells only a worker that has connected; one that is still starting would wait for work for ever.
        self.control_conn.push(BeamFnControlServicer._DONE_MARKER)
        try:
            super().close()
        except Exception:  # The connection of a process that was lost gives whatever broke it.
            if not self._is_lost:
                raise
            self.stop_worker()

    def _watch(self) -> None:
        try:
            self.worker.run()
        except RuntimeError as error:
            self._is_lost = True
            self._answer(f"a worker process was lost: {error}")

    def _answer(self, why: str) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            for asked, future in list(self.control_conn._futures_by_id.items()):
                if not future.is_done():
                    future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=asked, error=why))


@contextlib.contextmanager
def quiet_threads() -> Iterator[None]:
    """Keep what Beam's threads die of, once a job has failed, out of standard error; the log has it at debug."""
    before = threading.excepthook

    def note(died: Any) -> None:
        _log.debug("thread %s", died.thread.name if died.thread else "", exc_info=died.exc_value)

    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = before
