"""Matches the file names in annotations to the files in the `--images` roots.

A name with a folder is a path relative to a root, to the parent of a root, or to the only folder in a root. A bare name
is a file at the top of a root, or else any file of that name below it. Unmatched names are then compared after Unicode
normalization, with slashes for backslashes. The order of the roots has no effect.

    name × root → reach (rank) → the lowest rank per root → candidate → one, identical copies, or ambiguous
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from features.inputs import FileReference, ListedFile
from features.inputs.image_files import is_image_name, starts_as_image
from features.inputs.image_names import normalize_name
from pipelines.datasets.base import ListedImage
from pipelines.datasets.roots import label_roots
from schemas.defaults import MAX_IMAGE_BYTES
from schemas.errors import RecordError

_ARCHIVES = (".zip", ".tar")
# A file modified within this time before it is listed may change again without a new time stamp.
_DISTRUST_NS = 2_000_000_000
# Each read waits for a disk or an object store.
_THREADS = 16
_BATCH = 4096

_SCHEMA = """
CREATE TABLE root (number INTEGER PRIMARY KEY, label TEXT, own TEXT, top TEXT);
CREATE TABLE found (number INTEGER PRIMARY KEY, root INT, name TEXT, base TEXT, location TEXT, member TEXT, size INT,
    stamp TEXT, trusted INT, image INT, known INT);
CREATE TABLE name (number INTEGER PRIMARY KEY, file_name TEXT, root TEXT, form TEXT, UNIQUE (file_name, root));
CREATE TABLE reach (name INT, root INT, rank INT, found INT);
CREATE TABLE candidate (name INT, location TEXT, member TEXT, size INT, stamp TEXT, trusted INT,
    PRIMARY KEY (name, location, member)) WITHOUT ROWID;
CREATE TABLE folded (number INTEGER PRIMARY KEY, root INT, name TEXT, base TEXT, near TEXT);
"""
_INDEXES = """
CREATE INDEX IF NOT EXISTS found_name ON found (root, name);
CREATE INDEX IF NOT EXISTS found_base ON found (base);
"""
_FOLDED_INDEXES = """
CREATE INDEX IF NOT EXISTS folded_name ON folded (root, name);
CREATE INDEX IF NOT EXISTS folded_base ON folded (base);
CREATE INDEX IF NOT EXISTS folded_near ON folded (near, name);
"""
# CROSS JOIN fixes the order of the loops: each name and root looks into an index.
_REACH = """
INSERT INTO reach
    SELECT n.number, r.number, 0, f.number FROM name n CROSS JOIN root r
        CROSS JOIN {files} f ON f.root = r.number AND f.name = n.form
        WHERE n.form IS NOT NULL AND n.root IN ('', r.label)
    UNION ALL SELECT n.number, r.number, 1, f.number FROM name n CROSS JOIN root r
        CROSS JOIN {files} f ON f.root = r.number AND f.name = substr(n.form, length({own}) + 2)
        WHERE n.root = '' AND substr(n.form, 1, length({own}) + 1) = {own} || '/'
    UNION ALL SELECT n.number, r.number, 2, f.number FROM name n CROSS JOIN root r
        CROSS JOIN {files} f ON f.root = r.number AND f.name = {top} || '/' || n.form
        WHERE n.root = '' AND instr(n.form, '/') AND r.top != ''
    UNION ALL SELECT n.number, f.root, 3, f.number FROM name n CROSS JOIN {files} f ON f.base = n.form
        WHERE n.root = '' AND NOT instr(n.form, '/');
UPDATE name SET form = NULL;
"""
_EXACT = _REACH.format(files="found", own="r.own", top="r.top")
_FOLDED = _REACH.format(files="folded", own="fold(r.own)", top="fold(r.top)")
_CANDIDATES = """
INSERT INTO candidate SELECT reach.name, location, member, min(size), min(stamp), min(trusted)
    FROM reach JOIN (SELECT name, root, min(rank) AS rank FROM reach GROUP BY name, root) USING (name, root, rank)
    JOIN found ON found.number = reach.found GROUP BY reach.name, location, member;
"""
# SQL condition for the listed files that no name matches, after `match`.
UNANNOTATED = "found.number NOT IN (SELECT found FROM reach)"
_UNMATCHED = "number NOT IN (SELECT name FROM reach)"


class NameMatcher:
    """The listed files, and the names to match to them, in tables that are created in the database of a job.

    Its table `record` has `file_name`, `root` and `url`.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.executescript(_SCHEMA)
        self._db.create_function("fold", 1, normalize_name, deterministic=True)
        self._db.create_function("near", 1, str.casefold, deterministic=True)
        self._roots: list[str] = []

    def insert_files(self, listings: Mapping[str, Iterable[ListedFile]]) -> None:
        self._roots = list(listings)
        for number, label in enumerate(label_roots(self._roots)):
            own = label.rsplit("/", 1)[-1]
            own = own[:-4] if own.lower().endswith(_ARCHIVES) else own
            self._db.execute("INSERT INTO root VALUES (?, ?, ?, '')", (number, label, own))
        for root, files in listings.items():
            self.replace_files(root, files)

    def replace_files(self, root: str, files: Iterable[ListedFile]) -> None:
        number = self._roots.index(root)
        tops: set[str] = set()
        self._db.execute("DELETE FROM found WHERE root = ?", (number,))
        self._db.execute("BEGIN")
        self._db.executemany(
            """INSERT INTO found (root, name, base, location, member, size, stamp, trusted, image, known)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            ((number, *row) for row in _iterate_rows(files, tops)),
        )
        self._db.execute("COMMIT")
        top = tops.pop() if len(tops) == 1 else ""
        self._db.execute("UPDATE root SET top = ? WHERE number = ?", (top, number))

    def list_images(self) -> Iterator[ListedImage]:
        """Yields the image files by name. Files of unknown suffix are opened to find out whether they are images."""
        self._detect_images("TRUE")
        rows = self._db.execute(
            """SELECT name, iif(count(*) OVER (PARTITION BY name) > 1, label, ''), known
            FROM found JOIN root ON root.number = found.root WHERE image ORDER BY name, label"""
        )
        return (ListedImage(name, label, bool(is_known)) for name, label, is_known in rows)

    def match(self) -> None:
        """Finds the candidate files of each name in `record`."""
        self._db.executescript(
            f"""DELETE FROM name; DELETE FROM reach; DELETE FROM candidate; DELETE FROM folded;
            {_INDEXES}
            INSERT INTO name (file_name, root, form) SELECT DISTINCT file_name, root, file_name FROM record
                WHERE file_name != '';
            {_EXACT}"""
        )
        unmatched = self._db.execute(
            f"""UPDATE name SET form = fold(file_name) WHERE {_UNMATCHED}
            AND file_name NOT IN (SELECT file_name FROM record WHERE url != '')"""
        )
        if unmatched.rowcount:
            self._db.executescript(
                f"""INSERT INTO folded SELECT number, root, fold(name), fold(base), near(fold(base)) FROM found;
                {_FOLDED_INDEXES}
                {_FOLDED}"""
            )
        self._db.executescript(_CANDIDATES)

    def count_unannotated(self) -> int:
        """Returns the number of image files that no name matches, after `match`."""
        self._detect_images(UNANNOTATED)
        (number,) = self._db.execute(f"SELECT count(*) FROM found WHERE image AND {UNANNOTATED}").fetchone()
        return int(number)

    def list_ambiguous(self) -> Iterator[tuple[int, str, str]]:
        """Yields the number of each name that matches several files, and two of the files.

        Identical files count as one: the first by path is kept.
        """
        several = self._db.execute(
            "SELECT name, min(size) = max(size) FROM candidate GROUP BY name HAVING count(*) > 1"
        ).fetchall()
        for number, same_size in several:
            first, second, *_ = candidates = self._list_candidates(number)
            if same_size and _are_identical(candidates):
                others = "DELETE FROM candidate WHERE name = ? AND (location, member) != (?, ?)"
                self._db.execute(others, (number, first.location, first.member))
            else:
                yield number, first.label, second.label

    def find_similar(self, file_name: str) -> str:
        """Returns a file whose name differs in case or Unicode form only; empty without a similar file."""
        query = """SELECT found.name FROM folded CROSS JOIN found USING (number) WHERE near = ?
            ORDER BY near, folded.name LIMIT 1"""
        base = normalize_name(file_name).rsplit("/", 1)[-1]
        row = self._db.execute(query, (base.casefold(),)).fetchone()
        return str(row[0]) if row else ""

    def _detect_images(self, condition: str) -> None:
        """Reads the first bytes of the files that meet an SQL condition and have an unknown suffix."""
        query = f"""SELECT rowid, location, member FROM found WHERE image IS NULL AND rowid > ? AND {condition}
            ORDER BY rowid LIMIT {_BATCH}"""
        last = 0
        with ThreadPoolExecutor(_THREADS) as threads:
            while rows := self._db.execute(query, (last,)).fetchall():
                are_images = threads.map(starts_as_image, (FileReference(*place) for _, *place in rows))
                self._db.executemany(
                    "UPDATE found SET image = ? WHERE rowid = ?",
                    ((is_image, number) for is_image, (number, _, _) in zip(are_images, rows, strict=True)),
                )
                last = rows[-1][0]

    def _list_candidates(self, name: int) -> list[FileReference]:
        rows = self._db.execute("SELECT location, member FROM candidate WHERE name = ? ORDER BY 1, 2", (name,))
        return [FileReference(*row) for row in rows]


def _iterate_rows(files: Iterable[ListedFile], tops: set[str]) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of files. Collects in `tops` up to two of their top folders; "" means a file outside folders."""
    now = time.time_ns()
    for file in files:
        head, slash, _ = file.name.partition("/")
        if len(tops) < 2:
            tops.add(head if slash else "")
        base, (location, member) = file.name.rsplit("/", 1)[-1], (file.reference.location, file.reference.member)
        trusted = now - file.modified_ns > _DISTRUST_NS
        is_image = is_image_name(file.name)
        yield file.name, base, location, member, file.size, file.stamp, trusted, is_image, file.has_known_name


def _are_identical(references: Iterable[FileReference]) -> bool:
    """Returns whether all files have the same bytes. An unreadable or too large file equals no other."""
    digests = (hashlib.sha256(reference.read(MAX_IMAGE_BYTES)).digest() for reference in references)
    try:
        first = next(digests)
        return all(digest == first for digest in digests)
    except RecordError:
        return False
