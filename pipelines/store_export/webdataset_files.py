"""Writes WebDataset shards: tars of KEY.npy (features), KEY.json (the other columns) and KEY.txt (a single text).

Format: https://github.com/webdataset/webdataset. A key ends at the first dot after the last slash.
"""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from features.io.tar_writer import open_tar_writer
from pipelines.store_export.rows import Block, Layout


def write_tar(paths: Mapping[str, Path], layout: Layout, rows: int, blocks: Iterator[Block]) -> None:
    """Writes one sample per row, in their order."""
    with open_tar_writer(paths[".tar"]) as archive:
        for block in blocks:
            for number, row in enumerate(block.rows.to_pylist()):
                key = encode_key(row["image_id"])
                archive.add_bytes(f"{key}.npy", encode_npy(block.features[number]))
                archive.add_bytes(f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
                text = _find_text(row)
                if text is not None:
                    archive.add_bytes(f"{key}.txt", text.encode())


def encode_key(image_id: str) -> str:
    """Returns the key of an image, from which `urllib.parse.unquote` restores the image ID.

    Letters, digits, `_`, `-`, `~` and slashes stay as they are. Dots, which would end the key, and all other characters
    are percent-encoded. So are slashes, if a part between them is empty.
    """
    safe = "/" if all(image_id.split("/")) else ""
    return quote(image_id, safe=safe).replace(".", "%2E")


def encode_npy(array: NDArray[Any]) -> bytes:
    """Returns an array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _find_text(row: Mapping[str, Any]) -> str | None:
    """Returns the caption of an image with a single one, or else its label."""
    captions = row.get("captions") or []
    return captions[0] if len(captions) == 1 else row.get("label")
