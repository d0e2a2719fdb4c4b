"""Frozen graphs run in one way on processors where the bits of a row would depend on it."""

import pytest

from features.runtime.fixed_execution import FixedExecution, count_parallel_calls, find_fixed_execution


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
