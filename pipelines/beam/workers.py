"""Makes the loss of a local worker process end its job.

FnApiRunner with `--direct_running_mode=multi_processing` starts worker processes. It waits forever for the response of
a killed process. The handler in this module responds in its place.
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
    """Starts and watches a worker process, instead of Beam's own handler."""

    def start_worker(self) -> None:
        """Starts the process, and a thread that waits for its end."""
        self._is_lost = False
        self._stopping = threading.Event()
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._watch)
        self.worker_thread.start()

    def close(self) -> None:
        """Closes the connection and waits for the end of the process."""
        self._stopping.set()
        # Beam notifies connected workers only; a worker that is still starting would wait for work forever.
        self.control_conn.push(BeamFnControlServicer._DONE_MARKER)
        try:
            super().close()
        except Exception:  # The connection of a lost process raises the error that broke it.
            if not self._is_lost:
                raise
            self.stop_worker()

    def _watch(self) -> None:
        try:
            self.worker.run()
        except RuntimeError as error:
            self._is_lost = True
            message = f"a worker process was lost: {error}"
            while not self._stopping.wait(_POLL_SECONDS):
                for request, future in list(self.control_conn._futures_by_id.items()):
                    if not future.is_done():
                        future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=request, error=message))


@contextlib.contextmanager
def silence_threads() -> Iterator[None]:
    """Logs exceptions in Beam's threads at debug level in the block, instead of printing them."""
    before = threading.excepthook

    def log(failed: Any) -> None:
        _log.debug("thread %s", failed.thread.name if failed.thread else "", exc_info=failed.exc_value)

    threading.excepthook = log
    try:
        yield
    finally:
        threading.excepthook = before
