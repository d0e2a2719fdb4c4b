"""The two lock files agree, and one of them has no TensorFlow."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_versions(name: str) -> set[tuple[str, str]]:
    """Returns the packages with their versions, of which one may have several, for several versions of Python."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", text, re.MULTILINE))


def test_the_accelerator_environment_has_the_locked_versions_without_tensorflow() -> None:
    every, accelerator = map(read_versions, ("requirements.lock", "requirements-accelerator.lock"))
    assert accelerator <= every
    names = [{name for name, _ in lock} for lock in (every, accelerator)]
    assert {"apache-beam", "jax", "keras", "pyarrow"} <= names[1]
    tensorflow = {"tensorflow", "tensorflow-text", "tensorflow-transform"}
    assert tensorflow <= names[0]
    assert not tensorflow & names[1]
