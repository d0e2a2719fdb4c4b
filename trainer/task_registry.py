"""Finds the tasks that models are trained for, by name. `trainer.tasks.task.Task` says how to add one."""

import importlib
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from trainer.tasks.task import Task

# The module and class of each task, imported when first used.
TASKS = {
    "captioner": "trainer.tasks.captioning:CaptioningTask",
    "captcha": "trainer.tasks.captcha:CaptchaTask",
}


def find_task(name: str) -> "Task":
    """Returns the task with this name; raises UsageError if it is unknown."""
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}", hint=f"Use one of {', '.join(TASKS)}.")
    module, kind = TASKS[name].split(":")
    task: Task = getattr(importlib.import_module(module), kind)()
    return task
