"""The two lock files agree, and one of them has no TensorFlow."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_versions(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", text, re.MULTILINE))


def test_the_accelerator_environment_has_the_locked_versions_without_tensorflow() -> None:
    every, accelerator = map(read_versions, ("requirements.lock", "requirements-accelerator.lock"))
    assert accelerator.items() <= every.items()
    assert {"apache-beam", "jax", "keras", "pyarrow"} <= accelerator.keys()
    tensorflow = {"tensorflow", "tensorflow-text", "tensorflow-transform"}
    assert tensorflow <= every.keys()
    assert not tensorflow & accelerator.keys()
