"""Frozen graphs run in one way on processors where the bits of a row would depend on it."""

import logging

import pytest
import tensorflow as tf

from features.runtime import fixed_execution
from features.runtime.fixed_execution import (
    FixedExecution,
    count_parallel_calls,
    find_fixed_execution,
    separate_threads,
)


@pytest.mark.parametrize(
    ("flags", "is_fixed"),
    [("avx2 fma", True), ("avx2 avx512f", False), ("avx2 avx512f amx_bf16", False), ("asimd", False)],
)
def test_a_processor_with_avx2_but_without_avx_512_has_a_fixed_batch_size_and_number_of_threads(flags, is_fixed):
    assert (find_fixed_execution(frozenset(flags.split())) is not None) == is_fixed


@pytest.mark.parametrize(("cores", "calls"), [(1, 1), (2, 1), (8, 2), (64, 4)])
def test_concurrent_forward_passes_use_all_cores_within_bounds(cores, calls, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert count_parallel_calls(FixedExecution(batch_size=24, threads=4)) == calls
    assert count_parallel_calls(None) == 1


@pytest.mark.parametrize(("flags", "variable", "warnings"), [("avx2", "", 1), ("avx2", "true", 0), ("avx512f", "", 0)])
def test_tensorflow_that_was_used_before_is_reported_where_bits_depend_on_it(
    flags, variable, warnings, monkeypatch, caplog
):
    tf.constant(0)
    monkeypatch.setattr(fixed_execution, "read_cpu_flags", lambda: frozenset([flags]))
    monkeypatch.setenv("TF_OVERRIDE_GLOBAL_THREADPOOL", variable)
    with caplog.at_level(logging.WARNING, "capt"):
        separate_threads()
    assert len(caplog.records) == warnings
