"""Arrays of features become rows without unpickling anything."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.inputs.npy_arrays import compute_row_shape, parse_array, read_header, to_row
from schemas.errors import RecordError


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 6)),
        st.tuples(st.integers(2, 5), st.integers(1, 6)),
        st.tuples(st.integers(2, 3), st.integers(1, 4), st.integers(1, 5)),
    ),
    batch_axis=st.booleans(),
    dtype=st.sampled_from(["<f2", "<f4", "<f8", ">f4"]),
    order=st.sampled_from("CF"),
    version=st.sampled_from([(1, 0), (2, 0)]),
)
def test_a_row_has_the_values_in_row_major_order(shape, batch_axis, dtype, order, version):
    values = np.arange(np.prod(shape)).reshape(shape)
    array = np.asarray(values[None] if batch_axis else values, dtype, order=order)
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    expected = values if len(shape) < 3 else values.reshape(-1, shape[-1])
    row = to_row(parse_array(file.getvalue(), "x"), expected.shape, "float32", "x")
    assert row.dtype == np.float32
    assert row.flags.c_contiguous
    np.testing.assert_array_equal(row, expected)


def test_float16_is_stored_without_a_detour():
    row = to_row(np.array([0.1, 65504, 1e-7], np.float16), (3,), "float16", "x")
    assert row.dtype == np.float16
    np.testing.assert_array_equal(row, np.array([0.1, 65504, 1e-7], np.float16))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy(np.array([1, "a"], object), allow_pickle=True), "pickle"),
        (pickle.dumps([1.0]), "pickle"),
        (b"", "not an array"),
        (b"these are words", "not an array"),
        (npy(np.zeros(4))[:60], "not an array"),
        (npy(np.zeros(4)).replace(b"(4,)", b"(4, "), "not an array"),
        (npy(np.zeros(4))[:-1], "truncated"),
        (npy(np.zeros(4, np.int64)), "not features"),
        (npy(np.zeros(4, np.complex64)), "not features"),
        (npy(np.zeros(4, np.longdouble)), "not features"),
    ],
)
def test_what_is_not_an_array_of_floats_fails_with_its_reason(data, reason):
    with pytest.raises(RecordError) as raised:
        parse_array(data, "x.npy")
    assert raised.value.reason == reason
    assert "x.npy" in raised.value.detail


def test_a_pickle_is_never_opened():
    class Opened:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    for data in (pickle.dumps(Opened()), npy(np.array([Opened()], object), allow_pickle=True)):
        with pytest.raises(RecordError, match="a pickle can run code when it is opened, so capt does not open it"):
            read_header(io.BytesIO(data), "x")


def test_a_header_that_declares_more_than_the_file_has_allocates_nothing():
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
    np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(RecordError, match="truncated"):
        parse_array(file.getvalue(), "x")


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4, 5), (-1, 3)])
def test_other_shapes_are_no_rows(shape):
    with pytest.raises(RecordError, match=r"expected \[d\], \[positions, d\] or \[h, w, d\]"):
        compute_row_shape(shape, "x")


@pytest.mark.parametrize(
    ("values", "reason"),
    [([1, np.nan], "not finite"), ([1, -np.inf], "not finite"), ([1, 1e300], "overflow"), ([1, 2, 3], "other shape")],
)
def test_a_value_that_cannot_be_stored_fails_with_its_reason(values, reason):
    with pytest.raises(RecordError) as raised:
        to_row(np.array(values), (2,), "float32", "x")
    assert raised.value.reason == reason
