"""The ledger of one run: a row an input record, in SQLite on disk, so that memory does not grow with the records.

found (what walks saw) ⨝ record (what the dataset names) → key, from the stat cache or by hashing → status
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from features.references import ListedFile
from features.references.image_files import is_image_name
from pipelines.datasets.base import ListedImage
from pipelines.ingest.image_files import tell_images
from pipelines.ingest.image_identity import ImageIdentities
from pipelines.ingest.name_matching import UNANNOTATED, NameMatcher, remove_duplicate_roots
from pipelines.ingest.split_records import TWO_SPLITS, SplitRecords
from schemas.tables import CATALOG, FAILURES, LABELS, REPORT

# The reason of an image whose bytes are not those that were hashed.
CHANGED = "changed"

_LABELLED = "status != 'failed' AND label != ''"
_DISTRUST_NS = 2_000_000_000
_BUSY_SECONDS = 60.0

_log = logging.getLogger("capt.prepare")

_SCHEMA = """
CREATE TABLE record (image_id TEXT PRIMARY KEY, file_name TEXT, root TEXT, split TEXT, rank INT, url TEXT, label TEXT,
    stated TEXT, hashed INT,
    captions INT, location TEXT, member TEXT, size INT, stamp TEXT, trusted INT, key BLOB,
    status TEXT, stage TEXT, reason TEXT, detail TEXT) WITHOUT ROWID;
CREATE TABLE stored (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE failure (key BLOB PRIMARY KEY, stage TEXT, reason TEXT, detail TEXT, permanent INT) WITHOUT ROWID;
CREATE TABLE unfetched (url TEXT PRIMARY KEY, reason TEXT, detail TEXT) WITHOUT ROWID;
CREATE TABLE repeated_record (record TEXT, image_id TEXT);
CREATE VIEW outcome AS SELECT image_id AS record, status, stage, reason, detail FROM record
    UNION ALL SELECT r.record, 'duplicate', '', '', '' FROM repeated_record r JOIN record USING (image_id);
"""

_STAT_CACHE = """
CREATE TABLE IF NOT EXISTS cache.seen (location TEXT, member TEXT, size INT, stamp TEXT, key BLOB,
    PRIMARY KEY (location, member)) WITHOUT ROWID;
"""


class InputRecord(NamedTuple):
    """An image of a dataset as it is entered.

    Args:
        image_id: str. Its id.
        file_name: str. Its file's name.
        split: str. Its split; empty where it has none.
        rank: int. Where a limit places it.
        root: str. The label of the root that its file lies in; empty where the name says which file it is.
        url: str. Its address, or none.
        label: str. The word that it shows, or none.
        stated: str. The split that the input states, or none.
        hashed: bool. Whether a hash of the image ID decides the split.
        reason, detail: str. Why it has failed already: its dataset says what cannot be.
    """

    image_id: str
    file_name: str
    split: str
    rank: int
    root: str = ""
    url: str = ""
    label: str = ""
    stated: str = ""
    hashed: bool = False
    reason: str = ""
    detail: str = ""


class JobDatabase(SplitRecords):
    """What one run knows of its records.

    Args:
        path: Path. The database, made anew.
        hash_cache: Path. The store's memory of content keys by file times, shared between runs.
    """

    _CATALOGUED = "SELECT image_id FROM record WHERE status != 'failed'"

    def __init__(self, path: Path, hash_cache: Path) -> None:
        super().__init__(path, _SCHEMA)
        self.identities = ImageIdentities(self._db)
        self._matcher = NameMatcher(self._db)
        self._roots: list[str] = []
        hash_cache.parent.mkdir(parents=True, exist_ok=True)
        if not self._attach(hash_cache):
            _log.warning("%s is damaged; begun anew", hash_cache)
            hash_cache.unlink(missing_ok=True)
            self._attach(hash_cache)

    def add_roots(self, roots: Sequence[str]) -> None:
        """Insert the roots of `--images`; one that is named again is one root."""
        self._roots = remove_duplicate_roots(roots)
        self._matcher.add_roots(self._roots)

    def add_found(self, root: str, walked: Iterable[ListedFile]) -> None:
        """Insert what a walk over a root saw, in place of what an earlier one saw."""
        number = self._roots.index(root)
        tops: set[str] = set()
        self._db.execute("DELETE FROM found WHERE root = ?", (number,))
        self._insert(
            """INSERT INTO found (root, name, base, location, member, size, stamp, trusted, image)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            ((number, *row) for row in _found_rows(walked, tops)),
        )
        self._matcher.set_top(number, tops.pop() if len(tops) == 1 else "")

    def add_records(self, records: Iterable[InputRecord]) -> None:
        """Insert a dataset's images, each under an id of its own. One for which two splits are stated has failed."""
        self._insert(
            f"""INSERT INTO record (image_id, file_name, root, split, rank, url, label, stated, hashed, status, stage,
                reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (image_id) DO UPDATE SET
                status = iif(record.stated = '', record.status, 'failed'),
                stage = iif(record.stated = '', record.stage, 'parse'),
                reason = iif(record.stated = '', record.reason, '{TWO_SPLITS}'),
                detail = iif(record.stated = '', record.detail,
                    min(record.stated, excluded.stated) || ' and ' || max(record.stated, excluded.stated)),
                split = iif(record.stated = '', excluded.split, ''),
                hashed = 0,
                stated = iif(record.stated = '', excluded.stated, record.stated)
            WHERE excluded.stated != '' AND excluded.stated != record.stated""",
            map(_columns, records),
        )
        self._insert("INSERT INTO repeated_record VALUES (?, ?)", self.identities.repeated())

    def walked_files(self) -> Iterator[ListedImage]:
        """The image files that walks saw, by name."""
        tell_images(self._db)
        return self._matcher.walked_files()

    def add_captions(self, image_ids: Iterable[str]) -> None:
        """Count one caption for each image id given."""
        self._insert(
            "UPDATE record SET captions = coalesce(captions, 0) + 1 WHERE image_id = ?",
            ((image_id,) for image_id in image_ids),
        )

    def match(self) -> int:
        """Find the files that the records' names may mean; how many images no name means."""
        self._matcher.match()
        tell_images(self._db, UNANNOTATED)
        return self._one(f"SELECT count(*) FROM found WHERE image AND {UNANNOTATED}")

    def locate(self) -> None:
        """Give each record its one file, after `match`.

        A record without a file is `wanted` where it has an address, and else has failed. So has one with several.
        """
        self._find_files()
        self._db.execute("UPDATE record SET status = 'wanted' WHERE location IS NULL AND status IS NULL AND url != ''")
        self._fail_missing()

    def count_wanted(self) -> int:
        """How many addresses are to be downloaded."""
        return self._one("SELECT count(DISTINCT url) FROM record WHERE status = 'wanted'")

    def wanted(self, bucket_of: Callable[[str], int]) -> Iterator[tuple[int, str]]:
        """The addresses to download, with their buckets, by bucket."""
        self._db.create_function("bucket_of", 1, bucket_of, deterministic=True)
        rows = self._db.execute("SELECT DISTINCT bucket_of(url), url FROM record WHERE status = 'wanted' ORDER BY 1, 2")
        return ((bucket, url) for bucket, url in rows)

    def enter_unfetched(self, unfetched: Iterable[tuple[str, str, str]]) -> None:
        """Enter addresses that gave no image: address, reason, detail."""
        self._insert("INSERT OR REPLACE INTO unfetched VALUES (?, ?, ?)", unfetched)
        self._db.execute(
            """UPDATE record SET status = 'failed', stage = 'download', reason = u.reason, detail = u.detail
            FROM unfetched u WHERE u.url = record.url AND record.status = 'wanted'"""
        )

    def locate_downloads(self, root: str, walked: Iterable[ListedFile]) -> None:
        """Find the files of what was wanted, in a walk after the downloads."""
        self.add_found(root, walked)
        self._matcher.match()
        self._db.execute("UPDATE record SET status = NULL WHERE status = 'wanted'")
        self._find_files()
        self._fail_missing()

    def recall_keys(self) -> None:
        """Take the content keys of files that the stat cache knows unchanged."""
        self._db.execute(
            """UPDATE record SET key = (SELECT key FROM cache.seen s WHERE s.location = record.location AND
            s.member = record.member AND s.size = record.size AND s.stamp = record.stamp) WHERE status IS NULL"""
        )

    def unhashed(self) -> Iterator[dict[str, str]]:
        """The records without a key, as references to hash."""
        rows = self._db.execute(
            """SELECT image_id, location, member FROM record WHERE key IS NULL AND status IS NULL
            ORDER BY location, member"""
        )
        return ({"image_id": i, "location": location, "member": member} for i, location, member in rows)

    def enter_hashes(self, hashed: Iterable[list[str | None]]) -> None:
        """Enter what hashing found, and remember it in the stat cache."""
        rows = [(bytes.fromhex(key) if key else None, *failure, i) for i, key, *failure in hashed if i]
        with self.transaction():
            self._insert(
                "UPDATE record SET key = ?1, stage = ?2, reason = ?3, detail = ?4,"
                " status = iif(?2 IS NULL, NULL, 'failed') WHERE image_id = ?5",
                rows,
            )
            self._insert(
                """INSERT OR REPLACE INTO cache.seen SELECT location, member, size, stamp, key FROM record
                WHERE image_id = ? AND trusted AND key IS NOT NULL""",
                ((row[-1],) for row in rows),
            )

    def settle(self, stored: Iterable[bytes], remembered: Mapping[bytes, tuple[str, str, str]]) -> None:
        """Give every record a status: cached, failed, planned (the first of its key) or duplicate.

        Where the table has changed since, it may be told again, until what is planned is extracted.
        """
        self._db.executescript(
            """UPDATE record SET status = NULL WHERE status IN ('planned', 'duplicate');
            DROP TABLE IF EXISTS temp.first;"""
        )
        self._insert("INSERT OR IGNORE INTO stored VALUES (?)", ((key,) for key in stored))
        self._db.execute("UPDATE record SET status = 'cached' WHERE status IS NULL AND key IN (SELECT key FROM stored)")
        self.enter_failures((key, *failure, True) for key, failure in remembered.items())
        self._fail_known("status IS NULL")
        self._db.executescript(
            """CREATE TEMP TABLE first AS
                SELECT min(image_id) AS image_id FROM record WHERE status IS NULL GROUP BY key ORDER BY 1;
            UPDATE record SET status = 'planned' FROM first WHERE first.image_id = record.image_id;"""
        )
        self._db.execute("UPDATE record SET status = 'duplicate' WHERE status IS NULL")

    def count_planned(self) -> int:
        """How many images are to be extracted."""
        return self._one("SELECT count(*) FROM record WHERE status = 'planned'")

    def planned(self) -> Iterator[dict[str, Any]]:
        """The references to extract, by key."""
        rows = self._db.execute("SELECT key, location, member FROM record WHERE status = 'planned' ORDER BY key")
        return ({"key": key, "location": location, "member": member} for key, location, member in rows)

    def enter_failures(self, failures: Iterable[tuple[bytes, str, str, str, bool]]) -> None:
        """Enter images that failed: key, stage, reason, detail, and whether they would fail again."""
        self._insert("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?)", failures)

    def finish(self) -> None:
        """Turn what was planned into ok, and what failed into failed; files that changed are to be hashed again."""
        self._fail_known("status IN ('planned', 'duplicate')")
        self._db.execute("UPDATE record SET status = 'ok' WHERE status = 'planned'")
        self._db.execute(
            """DELETE FROM cache.seen WHERE (location, member) IN
            (SELECT location, member FROM record WHERE status = 'failed' AND reason = ?)""",
            (CHANGED,),
        )

    def counts(self) -> dict[str, int]:
        """Records by status."""
        return dict(self._db.execute("SELECT status, count(*) FROM outcome GROUP BY status"))

    def reasons(self) -> dict[str, int]:
        """Failed records by reason, most frequent first."""
        query = "SELECT reason, count(*) FROM record WHERE status = 'failed' GROUP BY reason ORDER BY 2 DESC, 1"
        return dict(self._db.execute(query))

    def splits(self) -> dict[str, int]:
        """Usable images by split."""
        query = "SELECT split, count(*) FROM record WHERE status != 'failed' GROUP BY split ORDER BY split"
        return dict(self._db.execute(query))

    def write_catalog(self, path: Path) -> None:
        """The dataset's join as Parquet, by image id."""
        query = "SELECT image_id, key, split, location, member, size FROM record WHERE status != 'failed' ORDER BY 1"
        self._write(path, CATALOG, query)

    def count_replaced(self) -> int:
        """Returns how many images have another content than in the dataset's last commit."""
        return self._one("SELECT count(*) FROM record JOIN assigned a USING (image_id) WHERE a.key != record.key")

    def count_labels(self) -> int:
        """Usable images whose words are told."""
        return self._one(f"SELECT count(*) FROM record WHERE {_LABELLED}")

    def write_labels(self, path: Path) -> None:
        """The words of the dataset's images as Parquet, by image id."""
        self._write(path, LABELS, f"SELECT image_id, label FROM record WHERE {_LABELLED} ORDER BY image_id")

    def write_report(self, path: Path) -> None:
        """What became of every record, as Parquet, by image id."""
        query = """SELECT record, status, coalesce(stage, ''), coalesce(reason, ''), coalesce(detail, '')
            FROM outcome ORDER BY 1, 2"""
        self._write(path, REPORT, query)

    def write_failures(self, path: Path) -> int:
        """The images of this run that would fail again, as Parquet; how many there are."""
        query = """SELECT key, stage, reason, detail FROM failure WHERE permanent AND key IN
            (SELECT key FROM record WHERE status = 'failed') ORDER BY key"""
        return self._write(path, FAILURES, query)

    def _attach(self, hash_cache: Path) -> bool:
        """Have the stat cache at hand; False where it is damaged."""
        try:
            self._db.execute("ATTACH ? AS cache", (str(hash_cache),))
            if self._db.execute("PRAGMA cache.quick_check(1)").fetchone() == ("ok",):
                self._db.executescript(_STAT_CACHE)
                return True
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            pass
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("DETACH cache")
        return False

    def _find_files(self) -> None:
        for number, one, other in self._matcher.ambiguities():
            condition = "(file_name, root) = (SELECT file_name, root FROM name WHERE number = ?) AND status IS NULL"
            self._fail("find", "ambiguous", f"{one} and {other}", condition, number)
        self._db.execute(
            """UPDATE record SET (location, member, size, stamp, trusted) = (c.location, c.member, c.size, c.stamp,
            c.trusted) FROM name n JOIN candidate c ON c.name = n.number WHERE n.file_name = record.file_name
            AND n.root = record.root AND record.location IS NULL AND record.status IS NULL"""
        )

    def _fail_missing(self) -> None:
        self._db.create_function("missing", 1, self._missing)
        self._db.execute(
            """UPDATE record SET status = 'failed', stage = 'find', reason = 'missing', detail = missing(file_name)
            WHERE location IS NULL AND status IS NULL"""
        )

    def _missing(self, file_name: str) -> str:
        near = self._matcher.near(file_name)
        return f"no such file in --images; near is {near}" if near else "no such file in --images"

    def _fail(self, stage: str, reason: str, detail: str, condition: str, *values: int) -> None:
        self._db.execute(
            f"UPDATE record SET status = 'failed', stage = ?, reason = ?, detail = ? WHERE {condition}",
            (stage, reason, detail, *values),
        )

    def _fail_known(self, condition: str) -> None:
        self._db.execute(
            f"""UPDATE record SET status = 'failed', stage = f.stage, reason = f.reason, detail = f.detail
            FROM failure f WHERE f.key = record.key AND {condition}"""
        )


def _found_rows(walked: Iterable[ListedFile], tops: set[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of what a walk saw; `tops` takes up to two of the folders that the files lie in, or an empty name."""
    now = time.time_ns()
    for found in walked:
        head, slash, _ = found.name.partition("/")
        if len(tops) < 2:
            tops.add(head if slash else "")
        yield (
            found.name,
            found.name.rsplit("/", 1)[-1],
            found.reference.location,
            found.reference.member,
            found.size,
            found.stamp,
            now - found.modified_ns > _DISTRUST_NS,
            is_image_name(found.name),
        )


def _columns(record: InputRecord) -> tuple[str | int | None, ...]:
    image_id, name, split, rank, root, *others, reason, detail = record
    failure = ("failed", "parse", reason, detail) if reason else (None, None, None, None)
    return image_id, name, root, split, rank, *others, *failure


def copy_hash_cache(source: Path, copy: Path) -> None:
    """Copy a stat cache as it is at one moment, though others write to it; one that cannot be read is left out."""
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
