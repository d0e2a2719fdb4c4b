"""Tells which of the files that a walk found are images, where their suffixes do not."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

from features.references import Reference
from features.references.image_files import starts_as_image

# Each read waits for a disk or an object store.
_THREADS = 16
_BATCH = 4096


def tell_images(db: sqlite3.Connection, condition: str = "TRUE") -> None:
    """Reads the first bytes of files found whose suffix is missing or not known, and notes which are images.

    Args:
        db: Database of a run. Its table `found` has `location`, `member`, and `image`, which is null for these files.
        condition: SQL condition. Other files found are left as they are.
    """
    query = f"""SELECT rowid, location, member FROM found WHERE image IS NULL AND rowid > ? AND {condition}
        ORDER BY rowid LIMIT {_BATCH}"""
    last = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        while rows := db.execute(query, (last,)).fetchall():
            told = threads.map(starts_as_image, (Reference(location, member) for _, location, member in rows))
            db.executemany(
                "UPDATE found SET image = ? WHERE rowid = ?",
                ((image, number) for image, (number, _, _) in zip(told, rows, strict=True)),
            )
            last = rows[-1][0]
