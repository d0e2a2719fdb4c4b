"""Evaluations are on equal data if images, IDs and references are equal."""

import numpy as np

from trainer.data.held_out_images import HeldOutImages


def held_out(key: bytes, reference: str) -> HeldOutImages:
    name = ("photos", "1")
    return HeldOutImages("val", (name,), {name: [reference]}, np.zeros(1, np.int64), {name: {"key": key}})


def test_the_digest_depends_on_images_and_references() -> None:
    digest = held_out(b"a" * 32, "x").digest
    assert held_out(b"a" * 32, "x").digest == digest
    assert held_out(b"b" * 32, "x").digest != digest
    assert held_out(b"a" * 32, "y").digest != digest
