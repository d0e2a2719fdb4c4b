"""The numerics class contains everything that affects a row's bits: device, chip, library and precision."""

import logging
import sys
from types import SimpleNamespace

import pytest

from features.extractors.devices import describe_accelerator, detect_device
from features.extractors.frozen_graph import FrozenGraph, detect_numerics_class
from features.runtime.numerics import (
    Device,
    Runtime,
    detect_cpu,
    emulates,
    resolve_frozen_runtime,
    resolve_onednn_precision,
    select_instruction_set,
    warn_about_emulation,
)

CPU = Device("cpu", "avx512f")
A100 = describe_accelerator("GPU", {"device_name": "NVIDIA A100", "compute_capability": (8, 0)}, True)
T4 = describe_accelerator("GPU", {"device_name": "Tesla T4", "compute_capability": (7, 5)}, True)
TPU = describe_accelerator("TPU", {}, True)


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        (resolve_frozen_runtime(CPU, True, "float32"), "cpu/avx512f/tensorflow-onednn/float32"),
        (resolve_frozen_runtime(CPU, True, "bfloat16"), "cpu/avx512f/tensorflow-onednn/bfloat16"),
        (resolve_frozen_runtime(CPU, False, "bfloat16"), "cpu/avx512f/tensorflow-eigen/float32"),
        (Runtime(CPU, "jax", "bfloat16"), "cpu/avx512f/jax/bfloat16"),
        (Runtime(A100, "tensorflow", "bfloat16"), "gpu/NVIDIA A100 (8.0)/tensorflow/bfloat16"),
        (Runtime(A100, "tensorflow", "float32"), "gpu/NVIDIA A100 (8.0)/tensorflow/tf32"),
        (Runtime(T4, "tensorflow", "float32"), "gpu/Tesla T4 (7.5)/tensorflow/float32"),
        (Runtime(TPU, "tensorflow", "float32"), "tpu/unknown/tensorflow/float32"),
    ],
    ids=str,
)
def test_device_library_and_precision_determine_the_class(runtime: Runtime, expected: str) -> None:
    assert runtime.numerics == expected


@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_each_backend_has_its_own_class(backend: str) -> None:
    assert Runtime(A100, backend, "bfloat16").numerics == f"gpu/NVIDIA A100 (8.0)/{backend}/bfloat16"


@pytest.mark.parametrize(
    ("capability", "has_tf32"), [("9.0", True), ("8.0", True), ("7.5", False), ("gfx90a", False), (None, False)]
)
def test_only_gpus_of_nvidia_have_tf32_on_jax(
    monkeypatch: pytest.MonkeyPatch, capability: str | None, has_tf32: bool
) -> None:
    gpu = SimpleNamespace(platform="gpu", device_kind="some chip")
    if capability:
        gpu.compute_capability = capability
    jax = SimpleNamespace(config=SimpleNamespace(jax_default_matmul_precision=None), devices=lambda: [gpu])
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert detect_device("jax", "gpu") == Device("gpu", "some chip", has_tf32=has_tf32)


def test_a_slash_in_the_name_of_a_chip_is_replaced() -> None:
    assert Runtime(Device("gpu", "a/b"), "jax", "float32").numerics.count("/") == 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 avx512f avx512_bf16 amx_bf16", "amx_bf16"),
        ("avx2 avx512f avx512_bf16", "avx512_bf16"),
        ("avx2 avx512f", "avx512f"),
        ("avx2", "avx2"),
        ("fp asimd", "asimd"),
        ("asimd sve", "sve"),
        ("asimd bf16", "asimd+bf16"),
        ("", "riscv64"),
    ],
)
def test_each_processor_has_a_class(flags: str, expected: str) -> None:
    assert select_instruction_set(frozenset(flags.split()), "riscv64") == expected


def test_the_class_is_detected_in_the_computing_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert detect_numerics_class("float32").split("/")[:2] == ["cpu", detect_cpu().chip]
    assert detect_device("tensorflow", "cpu") == detect_cpu()
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.uint8, [None, 2, 2, 3], "pixels")
        tf.cast(pixels, tf.float32, "features")
    network = FrozenGraph(graph.as_graph_def().SerializeToString(), "float32")
    assert network.numerics == detect_numerics_class("float32")


@pytest.mark.parametrize(
    ("precision", "flags", "expected"),
    [
        ("float32", "", False),
        ("bfloat16", "avx2 avx512f", True),
        ("mixed_bfloat16", "avx2", True),
        ("mixed_bfloat16", "amx_bf16", False),
        ("bfloat16", "asimd bf16", False),
        ("mixed_float16", "avx512_bf16", True),
        ("mixed_float16", "asimdhp", False),
    ],
)
def test_a_precision_without_instructions_is_emulated(precision: str, flags: str, expected: bool) -> None:
    assert emulates(precision, frozenset(flags.split())) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2", "float32"),
        ("avx2 avx512f", "bfloat16"),
        ("amx_bf16", "bfloat16"),
        ("asimd", "bfloat16"),
        ("", "float32"),
    ],
)
def test_a_processor_without_bfloat16_computes_in_float32(flags: str, expected: str) -> None:
    assert resolve_onednn_precision("bfloat16", frozenset(flags.split())) == expected
    assert resolve_onednn_precision("float32", frozenset(flags.split())) == "float32"


def test_only_emulation_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with caplog.at_level(logging.WARNING, "capt"):
        warn_about_emulation("float32")
        assert not caplog.records
        warn_about_emulation("bfloat16")
    assert len(caplog.records) == 1
