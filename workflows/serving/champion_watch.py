"""Replaces the runs of registered models by their new champions, while the old ones answer."""

import logging
import threading
from collections.abc import Sequence

from schemas.errors import CaptError
from workflows.serving.served_model import ServedModel

_log = logging.getLogger("capt.serving")


class ChampionWatch:
    """Looks for new champions again and again, in a thread of its own.

    Args:
        models: The models of a server.
        seconds: Time between two looks.
    """

    def __init__(self, models: Sequence[ServedModel], seconds: float) -> None:
        self._models = [model for model in models if model.is_registered]
        self._seconds = seconds
        self._problems: dict[str, str] = {}
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champions", daemon=True)
        if self._models:
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._is_stopped.set()
        if self._models:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped.wait(self._seconds):
            for model in self._models:
                self._look(model)

    def _look(self, model: ServedModel) -> None:
        """Replaces the run of a model. Each problem is logged once, and the old run goes on answering."""
        try:
            model.follow_champion()
            problem = ""
        except CaptError as error:
            problem = str(error)
        except Exception as error:
            problem = f"unexpected {type(error).__name__}: {error}"
        if problem and problem != self._problems.get(model.name):
            _log.warning(
                "The champion of %s cannot be served, so the earlier one still answers. %s", model.name, problem
            )
        self._problems[model.name] = problem
