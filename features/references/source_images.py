"""Originals: the encoded images that a dataset's catalog names, as long as they lie there unchanged."""

import hashlib
from collections.abc import Mapping
from typing import Any

from features.references import Reference
from schemas.errors import to_record_error


def read_source_image(row: Mapping[str, Any] | None) -> bytes | None:
    """The encoded image that a row of the catalog names.

    Args:
        row: mapping or None. A row of `schemas.tables.CATALOG`; None where the catalog has none.

    Returns:
        bytes, or None where the image is not at hand any more, or its file holds something else now.
    """
    if row is None:
        return None
    try:
        data = Reference(row["location"], row["member"]).read()
    except Exception as error:
        to_record_error("read", error)
        return None
    return data if hashlib.sha256(data).digest() == row["key"] else None
