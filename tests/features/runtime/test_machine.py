"""The description of the machine has what a report of a training needs, and no name of the machine or its user."""

import getpass
import platform
import re

from features.runtime.machine import describe_machine


def test_processor_cores_memory_and_system_are_described() -> None:
    machine = describe_machine()
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert machine["memory_gib"] is None or machine["memory_gib"] > 0.1
    assert machine["python"] == platform.python_version()
    assert isinstance(machine["accelerators"], list)


def test_neither_host_nor_user_is_named() -> None:
    values = re.findall(r"[\w.-]+", str(describe_machine()))
    assert platform.node() not in values
    assert getpass.getuser() not in values
