"""Compressed values round-trip, and equal values have equal bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.compression import compress, decompress
from schemas.tables import features_table


@pytest.mark.parametrize("compression", ["none", "zstd"])
@given(data=st.binary(max_size=2000))
def test_any_bytes_round_trip(compression: Any, data: bytes) -> None:
    kept = compress(data, compression)
    assert decompress(kept, compression, len(data)) == data
    assert compress(data, compression) == kept


def test_zeros_are_compressed() -> None:
    assert len(compress(bytes(1 << 16), "zstd")) < 100


@pytest.mark.parametrize("kept", [b"", b"no frame at all", compress(bytes(100), "zstd")[:-2]])
def test_an_invalid_frame_is_refused(kept: bytes) -> None:
    with pytest.raises(ValueError, match="not a zstd frame of 100 bytes"):
        decompress(kept, "zstd", 100)


def test_schema_and_documentation_name_the_compression() -> None:
    table = features_table((64, 2048), "int8", "zstd")
    metadata = table.arrow_schema().field("value").metadata
    assert metadata == {b"shape": b"[64, 2048]", b"dtype": b"int8", b"compression": b"zstd"}
    assert "int8[64, 2048], zstd" in table.doc_table()
