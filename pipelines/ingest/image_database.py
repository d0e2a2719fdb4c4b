"""Stores one row per input image of a job, and the hash cache of the store.

    listed files ⨝ record (images of the dataset) → key, from the hash cache or by hashing → status

A record has no status until one is decided: `failed`, `pending` (to be downloaded), `cached`, `planned` (to be
extracted) or `duplicate`; extraction turns `planned` into `ok` or `failed`.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from features.inputs import ListedFile
from features.io.atomic_files import working_path
from features.store.layout import CACHE
from features.text.time_steps import count_required_steps
from pipelines.datasets.limits import Limits
from pipelines.ingest.array_index import ArrayIndex
from pipelines.ingest.array_matching import ArrayMatcher
from pipelines.ingest.job_database import TWO_SPLITS, InputRecord, JobDatabase
from pipelines.ingest.name_matching import NameMatcher
from schemas.tables import CATALOG, FAILURES, LABELS

HASH_CACHE = "stat.sqlite"

# The failure reason of an image whose bytes are not the bytes that were hashed.
CHANGED = "changed"

_LABELLED = "status != 'failed' AND label != ''"
_BUSY_SECONDS = 60.0

_log = logging.getLogger("capt.prepare")

_SCHEMA = """
CREATE TABLE record (image_id TEXT PRIMARY KEY, file_name TEXT, root TEXT, split TEXT, rank INT, url TEXT, label TEXT,
    stated TEXT, has_hashed_split INT, expected_hash TEXT,
    captions INT, location TEXT, member TEXT, size INT, stamp TEXT, trusted INT, key BLOB,
    status TEXT, stage TEXT, reason TEXT, detail TEXT) WITHOUT ROWID;
CREATE TABLE stored (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE failure (key BLOB PRIMARY KEY, stage TEXT, reason TEXT, detail TEXT, permanent INT) WITHOUT ROWID;
CREATE TABLE failed_url (url TEXT PRIMARY KEY, reason TEXT, detail TEXT) WITHOUT ROWID;
CREATE TABLE ambiguous (number INTEGER PRIMARY KEY, files TEXT);
CREATE TABLE repeated_record (record TEXT, image_id TEXT);
CREATE VIEW outcome AS
    SELECT image_id AS record, status, coalesce(stage, ''), coalesce(reason, ''), coalesce(detail, '') FROM record
    UNION ALL SELECT r.record, 'duplicate', '', '', '' FROM repeated_record r JOIN record USING (image_id);
CREATE VIEW failed AS SELECT reason FROM record WHERE status = 'failed';
"""

_HASH_CACHE_SCHEMA = """CREATE TABLE IF NOT EXISTS cache.seen (
    location TEXT, member TEXT, size INT, stamp TEXT, key BLOB, PRIMARY KEY (location, member)) WITHOUT ROWID"""


class ImageDatabase(JobDatabase):
    """The input images of one job. `hash_cache` is the path of the store's hash cache, which jobs share."""

    _CATALOGUED = "SELECT image_id FROM record WHERE status != 'failed'"

    def __init__(self, path: Path, hash_cache: Path) -> None:
        super().__init__(path, _SCHEMA)
        self.files = NameMatcher(self._db)
        self._arrays: ArrayMatcher | None = None
        hash_cache.parent.mkdir(parents=True, exist_ok=True)
        if not self._attach(hash_cache):
            _log.warning("%s: the hash cache is corrupt. Creating a new one.", hash_cache)
            hash_cache.unlink(missing_ok=True)
            self._attach(hash_cache)

    # === Listing ===

    def insert_records(self, records: Iterable[InputRecord]) -> None:
        """Inserts images, each with an ID of its own. An image for which two splits are stated has failed."""
        columns = (*InputRecord._fields, "status", "stage")
        self._insert(
            f"""INSERT INTO record ({", ".join(columns)}) VALUES ({", ".join("?" * len(columns))})
            ON CONFLICT (image_id) DO UPDATE SET
                status = iif(record.stated = '', record.status, 'failed'),
                stage = iif(record.stated = '', record.stage, 'parse'),
                reason = iif(record.stated = '', record.reason, '{TWO_SPLITS}'),
                detail = iif(record.stated = '', record.detail,
                    min(record.stated, excluded.stated) || ' and ' || max(record.stated, excluded.stated)),
                split = iif(record.stated = '', excluded.split, ''),
                has_hashed_split = 0,
                stated = iif(record.stated = '', excluded.stated, record.stated)
            WHERE excluded.stated != '' AND excluded.stated != record.stated""",
            ((*one, *(("failed", "parse") if one.reason else (None, None))) for one in records),
        )
        self._insert("INSERT INTO repeated_record VALUES (?, ?)", self.identities.list_repeated())

    def insert_captions(self, image_ids: Iterable[str]) -> None:
        """Counts one caption per image ID."""
        counted = "UPDATE record SET captions = coalesce(captions, 0) + 1 WHERE image_id = ?"
        self._insert(counted, ((image_id,) for image_id in image_ids))

    def find_files(self, limits: Limits | None = None) -> int:
        """Finds the file of each record, and applies the limits. Returns the number of files that no record names.

        A record without a file is `pending` if it has a URL, else `failed`. A record with several files is `failed`.
        """
        self.files.match()
        unannotated = self.files.count_unannotated()
        self.limit(limits or Limits())
        self._assign_files()
        self._db.execute("UPDATE record SET status = 'pending' WHERE location IS NULL AND status IS NULL AND url != ''")
        self._fail_missing()
        return unannotated

    def count_located(self) -> int:
        return self._count("SELECT count(*) FROM record WHERE status IS NULL")

    def list_located(self, count: int) -> Iterator[dict[str, Any]]:
        """Yields image ID, file name, split, location and member of the first records by rank that have a file."""
        columns = "image_id, file_name, split, location, member"
        return self._select(columns, f"status IS NULL ORDER BY rank, image_id LIMIT {count}")

    # === Downloading ===

    def count_pending(self) -> int:
        return self._count("SELECT count(DISTINCT url) FROM record WHERE status = 'pending'")

    def list_pending(self, compute_bucket: Callable[[str], int]) -> Iterator[tuple[int, str]]:
        """Yields bucket and URL of the downloads, by bucket."""
        self._db.create_function("bucket_of", 1, compute_bucket, deterministic=True)
        query = "SELECT DISTINCT bucket_of(url), url FROM record WHERE status = 'pending' ORDER BY 1, 2"
        return iter(self._db.execute(query))

    def insert_failed_urls(self, failed: Iterable[tuple[str, str, str]]) -> None:
        """Inserts failed URLs: URL, reason, detail."""
        self._insert("INSERT OR REPLACE INTO failed_url VALUES (?, ?, ?)", failed)
        pending = "FROM failed_url u WHERE u.url = record.url AND record.status = 'pending'"
        self._fail("'download', u.reason, u.detail", pending)

    def find_downloads(self, root: str, files: Iterable[ListedFile]) -> None:
        """Finds the files of the pending records in a new listing of the download root."""
        self.files.replace_files(root, files)
        self.files.match()
        self._db.execute("UPDATE record SET status = NULL WHERE status = 'pending'")
        self._assign_files()
        self._fail_missing()

    # === Hashing ===

    def look_up_hashes(self) -> None:
        """Copies the content hashes of unchanged files from the hash cache.

        Another expected hash than this one is compared with the file, which is hashed again.
        """
        self._db.execute(
            """UPDATE record SET key = (SELECT key FROM cache.seen s WHERE s.location = record.location AND
            s.member = record.member AND s.size = record.size AND s.stamp = record.stamp AND
            record.expected_hash IN ('', lower(hex(s.key)))) WHERE status IS NULL"""
        )

    def list_unhashed(self) -> Iterator[dict[str, Any]]:
        """Yields image ID, location, member and expected hash of the records without a content hash."""
        columns = "image_id, location, member, expected_hash"
        return self._select(columns, "key IS NULL AND status IS NULL ORDER BY location, member")

    def insert_hashes(self, hashed: Iterable[list[str | None]]) -> None:
        """Inserts [image ID, content hash or None, stage, reason, detail] per image, and updates the hash cache."""
        rows = [(bytes.fromhex(key) if key else None, *failure, i) for i, key, *failure in hashed if i]
        with self.transaction():
            status = "status = iif(?2 IS NULL, NULL, 'failed')"
            self._insert(f"UPDATE record SET key=?1, stage=?2, reason=?3, detail=?4, {status} WHERE image_id=?5", rows)
            self._insert(
                """INSERT OR REPLACE INTO cache.seen SELECT location, member, size, stamp, key FROM record
                WHERE image_id = ? AND trusted AND key IS NOT NULL""",
                ((row[-1],) for row in rows),
            )

    # === Arrays ===

    def find_arrays(self, index: ArrayIndex) -> int:
        """Finds the array of each hashed image; an image without one, or with several, has failed.

        Returns the number of arrays that belong to no image. Raises as `ArrayMatcher.match`. `index` must stay open
        until `list_planned_arrays` is exhausted.
        """
        self._arrays = ArrayMatcher(self._db, index)
        unknown = self._arrays.match()
        failed = [("no features", *one) for one in self._arrays.list_missing()]
        failed += [("ambiguous", *one) for one in self._arrays.list_ambiguous()]
        self._insert(
            "UPDATE record SET status = 'failed', stage = 'find', reason = ?1, detail = ?3 WHERE image_id = ?2", failed
        )
        return unknown

    def list_planned_arrays(self) -> Iterator[dict[str, Any]]:
        """Yields content hash, location, member, row and SHA-256 of the arrays to import, by content hash."""
        assert self._arrays is not None
        return self._arrays.list_planned()

    # === Planning ===

    def classify(self, stored: Iterable[bytes], failures: Mapping[bytes, tuple[str, str, str]]) -> None:
        """Sets the status of every record: `cached`, `failed`, `planned` (the first of its content) or `duplicate`.

        `stored` are the content hashes of the table's rows, `failures` the permanent failures by content hash: stage,
        reason, detail. May be called again until the extraction if the table has changed.
        """
        self._db.executescript(
            """UPDATE record SET status = NULL WHERE status IN ('planned', 'duplicate');
            DROP TABLE IF EXISTS temp.first;"""
        )
        self._insert("INSERT OR IGNORE INTO stored VALUES (?)", ((key,) for key in stored))
        self._db.execute("UPDATE record SET status = 'cached' WHERE status IS NULL AND key IN (SELECT key FROM stored)")
        self._insert_failures(((key, *failure, True) for key, failure in failures.items()), "status IS NULL")
        self._db.executescript(
            """CREATE TEMP TABLE first AS
                SELECT min(image_id) AS image_id FROM record WHERE status IS NULL GROUP BY key ORDER BY 1;
            UPDATE record SET status = 'planned' FROM first WHERE first.image_id = record.image_id;"""
        )
        self._db.execute("UPDATE record SET status = 'duplicate' WHERE status IS NULL")

    def count_planned(self) -> int:
        return self._count("SELECT count(*) FROM record WHERE status = 'planned'")

    def list_planned(self) -> Iterator[dict[str, Any]]:
        """Yields content hash, location and member of the images to extract, by content hash."""
        return self._select("key, location, member", "status = 'planned' ORDER BY key")

    # === Results ===

    def insert_results(self, failures: Iterable[tuple[bytes, str, str, str, bool]] = ()) -> None:
        """Turns `planned` into `ok` or `failed`: content hash, stage, reason, detail and permanence of each failure.

        Removes changed files from the hash cache.
        """
        self._insert_failures(failures, "status IN ('planned', 'duplicate')")
        self._db.execute("UPDATE record SET status = 'ok' WHERE status = 'planned'")
        changed = "SELECT location, member FROM record WHERE status = 'failed' AND reason = ?"
        self._db.execute(f"DELETE FROM cache.seen WHERE (location, member) IN ({changed})", (CHANGED,))

    def assume_results(self) -> None:
        """Turns `planned` and `pending` into `ok`, as in a job without failures."""
        self._db.execute("UPDATE record SET status = 'ok' WHERE status IN ('planned', 'pending')")

    def count_by_split(self) -> dict[str, int]:
        """Returns the number of usable images by split."""
        query = "SELECT split, count(*) FROM record WHERE status != 'failed' GROUP BY split ORDER BY split"
        return dict(self._db.execute(query))

    def count_replaced(self) -> int:
        """Returns the number of images whose content differs from that in the dataset's last commit."""
        return self._count("SELECT count(*) FROM record JOIN assigned a USING (image_id) WHERE a.key != record.key")

    def count_removed(self) -> int:
        """Returns the number of images in the dataset's last commit that this run does not have, or that failed."""
        usable = "SELECT 1 FROM record r WHERE r.image_id = a.image_id AND r.status != 'failed'"
        return self._count(f"SELECT count(*) FROM assigned a WHERE catalogued AND NOT EXISTS ({usable})")

    def count_labels(self) -> int:
        return self._count(f"SELECT count(*) FROM record WHERE {_LABELLED}")

    def count_label_lengths(self) -> dict[int, int]:
        """Returns the number of located images by number of characters of their label."""
        query = "SELECT length(label), count(*) FROM record WHERE status IS NULL AND label != '' GROUP BY 1"
        return dict(self._db.execute(query))

    def find_longest_label(self) -> tuple[str, str] | None:
        """Returns image ID and label of the located image whose label needs most CTC time steps; None without labels.

        Of several, it is the one with the first image ID.
        """
        self._db.create_function("required_steps", 1, count_required_steps, deterministic=True)
        query = """SELECT image_id, label FROM record WHERE status IS NULL AND label != ''
            ORDER BY required_steps(label) DESC, image_id LIMIT 1"""
        found: tuple[str, str] | None = self._db.execute(query).fetchone()
        return found

    def count_label_texts(self) -> Iterator[tuple[str, str, int]]:
        """Yields split, label and number of images of the usable labels."""
        query = f"SELECT split, label, count(*) FROM record WHERE {_LABELLED} GROUP BY split, label"
        return iter(self._db.execute(query))

    def write_catalog(self, path: Path) -> None:
        query = "SELECT image_id, key, split, location, member, size FROM record WHERE status != 'failed' ORDER BY 1"
        self._write(path, CATALOG, query)

    def write_labels(self, path: Path) -> None:
        self._write(path, LABELS, f"SELECT image_id, label FROM record WHERE {_LABELLED} ORDER BY image_id")

    def write_failures(self, path: Path) -> None:
        """Writes the permanent failures of this job as Parquet, by content hash."""
        query = """SELECT key, stage, reason, detail FROM failure WHERE permanent AND key IN
            (SELECT key FROM record WHERE status = 'failed') ORDER BY key"""
        self._write(path, FAILURES, query)

    def _attach(self, hash_cache: Path) -> bool:
        """Opens the hash cache. Returns False if it is corrupt."""
        try:
            self._db.execute("ATTACH ? AS cache", (str(hash_cache),))
            if self._db.execute("PRAGMA cache.quick_check(1)").fetchone() == ("ok",):
                self._db.executescript(_HASH_CACHE_SCHEMA)
                return True
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            pass
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("DETACH cache")
        return False

    def _assign_files(self) -> None:
        ambiguous = ((number, f"{one} and {other}") for number, one, other in self.files.list_ambiguous())
        self._db.execute("DELETE FROM ambiguous")  # of a listing before the downloads
        self._insert("INSERT INTO ambiguous VALUES (?, ?)", ambiguous)
        named = "n.file_name = record.file_name AND n.root = record.root AND record.status IS NULL"
        self._fail("'find', 'ambiguous', a.files", f"FROM ambiguous a JOIN name n USING (number) WHERE {named}")
        self._db.execute(
            """UPDATE record SET (location, member, size, stamp, trusted) = (c.location, c.member, c.size, c.stamp,
            c.trusted) FROM name n JOIN candidate c ON c.name = n.number WHERE n.file_name = record.file_name
            AND n.root = record.root AND record.location IS NULL AND record.status IS NULL"""
        )

    def _fail_missing(self) -> None:
        def describe(file_name: str) -> str:
            similar = self.files.find_similar(file_name)
            return f"no such file in --images; similar: {similar}" if similar else "no such file in --images"

        self._db.create_function("describe_missing", 1, describe)
        self._fail("'find', 'missing', describe_missing(file_name)", "WHERE location IS NULL AND status IS NULL")

    def _insert_failures(self, failures: Iterable[tuple[bytes, str, str, str, bool]], condition: str) -> None:
        """Inserts failures, and fails the records that meet an SQL condition and have a known failure."""
        self._insert("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?)", failures)
        self._fail("f.stage, f.reason, f.detail", f"FROM failure f WHERE f.key = record.key AND {condition}")

    def _select(self, columns: str, condition: str) -> Iterator[dict[str, Any]]:
        names, rows = columns.split(", "), self._db.execute(f"SELECT {columns} FROM record WHERE {condition}")
        return (dict(zip(names, row, strict=True)) for row in rows)

    def _fail(self, values: str, which: str) -> None:
        """Fails records. `values` are stage, reason and detail in SQL, `which` the end of the statement."""
        self._db.execute(f"UPDATE record SET status = 'failed', (stage, reason, detail) = ({values}) {which}")


def locate_hash_cache(root: Path) -> Path:
    """Returns the local path of the hash cache, for the root of a sink."""
    return working_path(root / CACHE / HASH_CACHE)


def copy_hash_cache(source: Path, copy: Path) -> None:
    """Copies a hash cache while other runs may write to it. An unreadable cache is not copied."""
    if not source.exists():
        return
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as one,
            contextlib.closing(sqlite3.connect(copy)) as other,
        ):
            one.backup(other)
    except sqlite3.Error:
        copy.unlink(missing_ok=True)
