"""Matches the file names of annotations to the files that were found in the roots of `--images`.

A name with a folder is a path relative to a root, to the root's parent, or to the one folder that holds all of a root.
A bare name is a file at the top of a root, else any file of that name below it. What is left is matched once more
without regard to Unicode normalization and the kind of slash. The order of the roots decides nothing.

    name × root → reach (rank) → the lowest rank of each root → candidate → one, equal bytes, or ambiguous
"""

import hashlib
import os
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from features.io.uris import is_uri
from features.references import MAX_IMAGE_BYTES, Reference
from pipelines.datasets.base import ListedImage
from schemas.errors import RecordError

_ARCHIVES = (".zip", ".tar")

_SCHEMA = """
CREATE TABLE root (number INTEGER PRIMARY KEY, label TEXT, own TEXT, top TEXT);
CREATE TABLE found (number INTEGER PRIMARY KEY, root INT, name TEXT, base TEXT, location TEXT, member TEXT, size INT,
    stamp TEXT, trusted INT, image INT);
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
# The files found that no name means, as an SQL condition, after `match`.
UNANNOTATED = "found.number NOT IN (SELECT found FROM reach)"
_UNREACHED = "number NOT IN (SELECT name FROM reach)"


class Ambiguity(NamedTuple):
    """Two of the files that one name matches.

    Args:
        number: int. The name.
        one, other: str. The files, as people write them.
    """

    number: int
    one: str
    other: str


class NameMatcher:
    """The files found, and the names to be matched to them.

    Args:
        db: sqlite3.Connection. A run's database, in which the tables are made. It has a table `record` with
            `file_name`, `root` and `url`.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.executescript(_SCHEMA)
        self._db.create_function("fold", 1, normalize_name, deterministic=True)
        self._db.create_function("near", 1, str.casefold, deterministic=True)

    def add_roots(self, roots: Sequence[str]) -> None:
        """Insert the roots of `--images`, each once."""
        labels = label_roots(roots)
        rows = ((number, label, _own_name(label), "") for number, label in enumerate(labels))
        self._db.executemany("INSERT INTO root VALUES (?, ?, ?, ?)", rows)

    def set_top(self, root: int, top: str) -> None:
        """Say which folder holds all files of a root; empty where there is none."""
        self._db.execute("UPDATE root SET top = ? WHERE number = ?", (top, root))

    def walked_files(self) -> Iterator[ListedImage]:
        """Yields the image files found, by name."""
        rows = self._db.execute(
            """SELECT name, iif(count(*) OVER (PARTITION BY name) > 1, label, '')
            FROM found JOIN root ON root.number = found.root WHERE image ORDER BY name, label"""
        )
        return (ListedImage(*row) for row in rows)

    def match(self) -> None:
        """Finds the files that each record's name may mean."""
        self._db.executescript(
            f"""DELETE FROM name; DELETE FROM reach; DELETE FROM candidate; DELETE FROM folded;
            {_INDEXES}
            INSERT INTO name (file_name, root, form) SELECT DISTINCT file_name, root, file_name FROM record
                WHERE file_name != '';
            {_EXACT}"""
        )
        left = self._db.execute(
            f"""UPDATE name SET form = fold(file_name) WHERE root = '' AND {_UNREACHED}
            AND file_name NOT IN (SELECT file_name FROM record WHERE url != '')"""
        )
        if left.rowcount:
            self._db.executescript(
                f"""INSERT INTO folded SELECT number, root, fold(name), fold(base), near(fold(base)) FROM found;
                {_FOLDED_INDEXES}
                {_FOLDED}"""
            )
        self._db.executescript(_CANDIDATES)

    def ambiguities(self, max_bytes: int = MAX_IMAGE_BYTES) -> Iterator[Ambiguity]:
        """Yields the names that mean several files. Files of equal bytes are one: the first by path stays.

        Args:
            max_bytes: Files of more bytes are not compared.
        """
        several = self._db.execute(
            "SELECT name, min(size) = max(size) FROM candidate GROUP BY name HAVING count(*) > 1"
        ).fetchall()
        for number, same_size in several:
            if same_size and _same_bytes(self._references(number), max_bytes):
                first = next(self._references(number))
                self._db.execute(
                    "DELETE FROM candidate WHERE name = ? AND (location, member) != (?, ?)",
                    (number, first.location, first.member),
                )
            else:
                references = self._references(number)
                yield Ambiguity(number, next(references).label, next(references).label)

    def near(self, file_name: str) -> str:
        """Returns a file found whose last part differs in case or Unicode form alone; empty where there is none."""
        query = """SELECT found.name FROM folded CROSS JOIN found USING (number) WHERE near = ?
            ORDER BY near, folded.name LIMIT 1"""
        base = normalize_name(file_name).rsplit("/", 1)[-1]
        row = self._db.execute(query, (base.casefold(),)).fetchone()
        return str(row[0]) if row else ""

    def _references(self, name: int) -> Iterator[Reference]:
        rows = self._db.execute("SELECT location, member FROM candidate WHERE name = ? ORDER BY 1, 2", (name,))
        return (Reference(*row) for row in rows)


def normalize_name(name: str) -> str:
    """Returns a name in Unicode's composed form, with slashes for backslashes, without a leading `./`."""
    folded = unicodedata.normalize("NFC", name).replace("\\", "/")
    while folded.startswith("./"):
        folded = folded[2:].lstrip("/")
    return folded


def remove_duplicate_roots(roots: Sequence[str]) -> list[str]:
    """Returns the roots without those that are named again."""
    return list({_absolute(root): root for root in reversed(roots)}.values())[::-1]


def label_roots(roots: Sequence[str]) -> list[str]:
    """Returns the shortest ends of the roots' paths that tell each from the others."""
    parts = [PurePosixPath(_absolute(root)).parts for root in roots]
    for length in count(1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels) or length >= max(map(len, parts), default=0):
            return labels
    raise AssertionError


def _absolute(root: str) -> str:
    return root.rstrip("/") if is_uri(root) else os.path.normpath(Path(root).absolute())


def _own_name(label: str) -> str:
    name = label.rsplit("/", 1)[-1]
    return name[:-4] if name.lower().endswith(_ARCHIVES) else name


def _same_bytes(references: Iterable[Reference], max_bytes: int) -> bool:
    """Whether all files hold the same bytes; what cannot be read is like no other."""
    first = None
    for reference in references:
        try:
            digest = hashlib.sha256(reference.read(max_bytes)).digest()
        except RecordError:
            return False
        if first is None:
            first = digest
        elif digest != first:
            return False
    return True
