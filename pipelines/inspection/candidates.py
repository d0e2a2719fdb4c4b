"""Lists the dataset types that can read paths, with the options of the commands that prepare them.

A type is a candidate if its own reader reads at least half of the first records. To add a type with annotation files,
add it to `_ANNOTATIONS`; for any other type, add a function to `_FINDERS`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple

from features.inputs import ListedFile
from features.inputs.label_files import TABLES
from pipelines.datasets import DATASET_READERS, urls
from pipelines.datasets.annotation_files import AnnotationReader, remove_gzip_suffix
from pipelines.datasets.imagefolder import ImageFolderReader
from pipelines.datasets.label_sources import LABEL_FILE
from pipelines.inspection.contents import Contents, find_distinct
from pipelines.inspection.first_records import CAPTCHA, FirstRecords, Record
from schemas.errors import UsageError

_MAX_FILES = 8  # of a path, that are read one by one
_MAX_TOGETHER = 500
_MAX_PER_DIRECTORY = 5
_LABEL_SUFFIXES = (*TABLES, ".txt")
_SHORT_LABEL = re.compile(r"[^\W_]{1,8}")
_MIN_SHORT_LABELS = 0.9


@dataclass(frozen=True)
class Candidate:
    """A dataset type that reads the paths: the values of its options, its first records, and why it fits."""

    dataset_type: str
    reason: str
    images: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    labels: str = ""
    records: tuple[Record, ...] = field(default=(), compare=False)


class _AnnotationFormat(NamedTuple):
    """Suffixes of files that may have a format under another name than the published one, and what the format is."""

    suffixes: tuple[str, ...]
    description: str


# If several read a file, the first is the best.
_ANNOTATIONS = {
    "coco": _AnnotationFormat((".json",), "COCO captions"),
    "karpathy": _AnnotationFormat((".json",), "Karpathy's splits"),
    "flickr8k": _AnnotationFormat((".token", ".txt"), "lines `name.jpg#0`, a tab and the caption, as in Flickr8k"),
    "flickr30k": _AnnotationFormat((".token", ".txt", ".csv"), "captions as in Flickr30k"),
    "conceptual": _AnnotationFormat((".tsv", ".txt"), "lines of caption, tab and URL, as in Conceptual Captions"),
    "iapr": _AnnotationFormat((".eng",), "IAPR TC-12 annotations"),
    "jsonl": _AnnotationFormat((".jsonl", ".ndjson", ".json", ".txt"), "JSON lines with image and caption"),
    "csv": _AnnotationFormat((".csv", ".tsv", ".txt"), "a table with columns of images and captions"),
}


def find_candidates(first: FirstRecords) -> list[Candidate]:
    """Returns the candidates, the best first: those of the first line of `_FINDERS` that has any."""
    for finders in _FINDERS:
        found = [one for find in finders for one in find(first)]
        if found:
            return found
    return []


# === Files with images and captions ===


def _find_webdataset(first: FirstRecords) -> Iterator[Candidate]:
    """Tars whose files are samples: `KEY.jpg` with `KEY.txt`, `KEY.caption` or `KEY.json`."""
    shards = _find_shards(first.contents, ".tar")
    shard, location = next(iter(shards.values()), ("", ""))
    records = first.read("webdataset", shard, lambda: [first.excerpt.copy_tar(location)]) if shard else ()
    if records:
        reason = f"{shard} contains samples: files with one key are an image and its caption"
        yield Candidate("webdataset", reason, images=tuple(shards), records=records)


def _find_huggingface(first: FirstRecords) -> Iterator[Candidate]:
    """Parquet files with a column of encoded images."""
    shards = _find_shards([one for one in first.contents if not one.is_pattern], ".parquet")
    shard, location = next(iter(shards.values()), ("", ""))
    records = first.read("huggingface", shard, lambda: [first.excerpt.copy_parquet(location)]) if shard else ()
    if records:
        reason = f"{shard} has a column of encoded images and one of captions"
        yield Candidate("huggingface", reason, images=tuple(shards), records=records)


def _find_shards(contents: Sequence[Contents], suffix: str) -> dict[str, tuple[str, str]]:
    """Returns the paths that contain shards, each with path and location of its first one.

    A path below another one is part of it.
    """
    shards: dict[str, tuple[str, str]] = {}
    for one in contents:
        if one.is_archive:
            found = [(one.path, one.path)] if one.path.lower().endswith(suffix) else []
        else:
            found = [(one.name_path(file), file.reference.location) for file in one.find_files([suffix])]
        if found and not any(one.path.startswith(f"{other.rstrip('/')}/") for other in shards):
            shards[one.path] = found[0]
    return shards


def _find_metadata(first: FirstRecords) -> Iterator[Candidate]:
    """Images with `metadata.csv`, `.jsonl` or `.parquet`, which name them in the column `file_name`."""
    for one in first.image_contents:
        files = [file for file in one.files if ImageFolderReader.pattern.search(remove_gzip_suffix(file.name))]
        records = _read_metadata(first, one, files[:_MAX_FILES]) if files else ()
        if records:
            reason = f"{files[0].name} has the captions of images in {one.path}"
            yield Candidate("imagefolder", reason, images=first.image_roots, records=records)
            return


def _read_metadata(first: FirstRecords, contents: Contents, files: Sequence[ListedFile]) -> tuple[Record, ...]:
    path = contents.label_file(files[0])
    return first.read("imagefolder", path, lambda: [first.excerpt.copy_metadata(contents, files)])


# === Annotation files ===


def _find_urls(first: FirstRecords) -> Iterator[Candidate]:
    """Tables with a column of the URLs of images."""
    lists: list[str] = []
    records: tuple[Record, ...] = ()
    for one in first.contents:
        files = [] if one.is_archive else one.find_files(urls.SUFFIXES)
        readable, own = _read_files(first, one, files, partial(_read_urls, first, one))
        lists += [one.path] if files and len(readable) == len(files) else readable
        records = records or own
    if lists:
        reason = f"{lists[0]} contains URLs of images, which are downloaded, and captions"
        yield Candidate("urls", reason, first.image_roots, tuple(lists), records=records)


def _read_urls(first: FirstRecords, contents: Contents, file: ListedFile) -> tuple[Record, ...]:
    """Returns the first records of a list of URLs; without a column of URLs, another reader states the problem."""
    is_parquet, location = file.name.lower().endswith(".parquet"), file.reference.location
    if not urls.has_urls(location, first.columns):
        return ()
    path = contents.name_path(file)
    return first.read("urls", path, lambda: [first.excerpt.copy_parquet(location) if is_parquet else location])


def _read_files(
    first: FirstRecords,
    contents: Contents,
    files: Sequence[ListedFile],
    read: Callable[[ListedFile], tuple[Record, ...]],
) -> tuple[list[str], tuple[Record, ...]]:
    """Returns the paths of the readable files, and the records of the first one.

    If all of the first files are readable, those after them count as readable, too.
    """
    found = {contents.name_path(file): read(file) for file in files[:_MAX_FILES]}
    readable = [path for path, records in found.items() if records]
    others = list(map(contents.name_path, files[_MAX_FILES:]))
    if len(readable) == len(found):
        return readable + others, next(iter(found.values()), ())
    for path in others if readable else []:
        problem = f"only {_MAX_FILES} files were read, of which some are not readable"
        first.refuse(path, UsageError(problem, hint="Name it."))
    return readable, next(filter(None, found.values()), ())


def _find_annotations(first: FirstRecords) -> Iterator[Candidate]:
    """Annotation files with their published names, or else with any name. There may be no images."""
    for has_usual_name in (True, False):
        found = [one for kind in _ANNOTATIONS for one in _find_annotated(first, kind, has_usual_name=has_usual_name)]
        if found:
            yield from found
            return


def _find_annotated(first: FirstRecords, dataset_type: str, *, has_usual_name: bool) -> Iterator[Candidate]:
    """Yields the candidate of a type whose reader reads annotation files."""
    annotations: list[str] = []
    records: tuple[Record, ...] = ()
    for one in first.contents:
        files = [] if one.is_pattern else _list_annotations(one, dataset_type, has_usual_name=has_usual_name)
        read = _read_usual if has_usual_name else _read_unusual
        readable, own = read(first, dataset_type, one, files)
        annotations += readable
        records = records or own
    annotations = find_distinct(annotations)
    if annotations:
        annotations += _list_additions(first.contents, dataset_type, annotations)
        annotations += _list_unopened(first.contents, annotations)
    if len(annotations) > 1 and not first.check_files(dataset_type, annotations):
        return
    if annotations:
        reason = f"{annotations[0]} contains {_ANNOTATIONS[dataset_type].description}"
        images = first.image_roots
        yield Candidate(dataset_type, reason, images, tuple(find_distinct(annotations)), records=records)


def _list_annotations(contents: Contents, dataset_type: str, *, has_usual_name: bool) -> list[ListedFile]:
    suffixes = [f"{suffix}{end}" for suffix in _ANNOTATIONS[dataset_type].suffixes for end in ("", ".gz")]
    files = contents.files if has_usual_name else contents.find_files(suffixes)
    pattern = _get_reader(dataset_type).pattern
    return [one for one in files if bool(pattern.search(remove_gzip_suffix(one.name))) == has_usual_name]


def _list_additions(contents: Sequence[Contents], dataset_type: str, annotations: Sequence[str]) -> list[str]:
    """Returns the files that a reader reads only beside the annotation files, and that are not below one of these."""
    unpacked = [one for one in contents if not one.is_archive and one.path not in annotations]
    return [one.name_path(file) for one in unpacked for file in one.files if _is_addition(dataset_type, file)]


def _list_unopened(contents: Sequence[Contents], annotations: Sequence[str]) -> list[str]:
    """Returns the archives that were not opened, if all others contain annotations."""
    archives = [one for one in contents if one.is_archive]
    if any(one.is_opened and one.path not in annotations for one in archives):
        return []
    return [one.path for one in archives if not one.is_opened]


def _is_addition(dataset_type: str, file: ListedFile) -> bool:
    additions = _get_reader(dataset_type).additions
    return additions is not None and additions.search(remove_gzip_suffix(file.name)) is not None


def _get_reader(dataset_type: str) -> type[AnnotationReader]:
    reader = DATASET_READERS[dataset_type]
    assert isinstance(reader, type)
    assert issubclass(reader, AnnotationReader)
    return reader


def _read_usual(
    first: FirstRecords, dataset_type: str, contents: Contents, files: Sequence[ListedFile]
) -> tuple[list[str], tuple[Record, ...]]:
    """Reads files with usual names. The reader chooses among those of an archive, or of a large directory."""
    if contents.is_archive or len(files) > _MAX_FILES:
        records = _read_together(first, dataset_type, contents, files) if files else ()
        return ([contents.path] if records else []), records
    own = [one for one in files if not _is_addition(dataset_type, one)]
    return _read_files(first, contents, own, partial(_read_file, first, dataset_type, contents))


def _read_unusual(
    first: FirstRecords, dataset_type: str, contents: Contents, files: Sequence[ListedFile]
) -> tuple[list[str], tuple[Record, ...]]:
    """Reads files with other names. The reader finds none of them in an archive."""
    if not contents.is_archive:
        return _read_files(first, contents, files, partial(_read_file, first, dataset_type, contents))
    for one in files[:_MAX_FILES]:
        if _read_file(first, dataset_type, contents, one):
            problem = f"in an archive, dataset type {dataset_type} reads no file of this name"
            first.refuse(contents.label_file(one), UsageError(problem, hint="Unpack it."))
    return [], ()


def _read_file(first: FirstRecords, dataset_type: str, contents: Contents, file: ListedFile) -> tuple[Record, ...]:
    path = contents.label_file(file)
    return first.read(dataset_type, path, lambda: [first.excerpt.copy_file(contents, file)])


def _read_together(
    first: FirstRecords, dataset_type: str, contents: Contents, files: Sequence[ListedFile]
) -> tuple[Record, ...]:
    """Returns the first records of a directory with some of the files, a few of each directory in it."""
    counts = Counter[str]()
    chosen = []
    for one in files:
        counts[parent := str(PurePosixPath(one.name).parent)] += 1
        if counts[parent] <= _MAX_PER_DIRECTORY:
            chosen.append(one)
    path = contents.label_file(files[0])
    return first.read(dataset_type, path, lambda: [first.excerpt.copy_files(contents, chosen[:_MAX_TOGETHER])])


# === Images with text ===


def _find_labels(first: FirstRecords) -> Iterator[Candidate]:
    """A label file of CAPTCHAs: lines `ID LABEL`, a table, or a label per line. Files that were named come first."""
    found: dict[str, tuple[Record, ...]] = {}
    for one in sorted(first.contents, key=lambda one: one.kind != "file"):
        files = [] if one.is_pattern else one.find_files(_LABEL_SUFFIXES)
        if one.kind != "file":
            files = [file for file in files if LABEL_FILE.search(file.name)]
        if one.is_archive and len(files) > 1:
            continue
        for file in files[:_MAX_FILES]:
            records = _read_label_file(first, one, file)
            if records:
                found[one.name_path(file)] = records
    for path, records in islice(found.items(), 1):
        reason = f"{path} has one label without white space per image"
        yield Candidate(CAPTCHA, reason, first.image_roots, labels=path, records=records)
    for other in islice(found, 1, None):
        hint = "Write one table with a column split."
        first.refuse(other, UsageError(f"another label file than {path}, and only one is read", hint=hint))


def _read_label_file(first: FirstRecords, contents: Contents, file: ListedFile) -> tuple[Record, ...]:
    path = contents.label_file(file)
    return first.read_labels(path, lambda: (first.image_roots, first.excerpt.copy_file(contents, file)))


def _find_named(first: FirstRecords) -> Iterator[Candidate]:
    """Images whose names are short enough for labels, and are not only numbered."""
    names = [PurePosixPath(image.name).stem for one in first.listed_images for image in one.images]
    short = sum(_SHORT_LABEL.fullmatch(name) is not None for name in names)
    if not names or short < _MIN_SHORT_LABELS * len(names):
        return
    copies = [first.excerpt.copy_images(one) for one in first.listed_images]
    records = first.read_labels(first.image_roots[0], lambda: (copies, None))
    if records:
        yield Candidate(CAPTCHA, "the names of the images may be labels", first.image_roots, records=records)


# === Images without a file of captions ===


def _find_classes(first: FirstRecords) -> Iterator[Candidate]:
    """Images in directories of several classes."""
    copies = [first.excerpt.copy_images(one) for one in first.listed_images]
    records = first.read("imagefolder", first.image_roots[0], lambda: copies) if copies else ()
    classes = first.list_classes(copies) if records else []
    if len(classes) > 1:
        shown = f"{', '.join(classes[:_MAX_PER_DIRECTORY])}{', …' if len(classes) > _MAX_PER_DIRECTORY else ''}"
        reason = f"the directories may be classes, which become captions: {shown}"
        yield Candidate("imagefolder", reason, first.image_roots, records=records)


def _find_folder(first: FirstRecords) -> Iterator[Candidate]:
    """Images without captions."""
    roots = first.image_roots
    records = first.read("folder", roots[0], tuple) if roots else ()
    if records:
        yield Candidate("folder", "there are images, and no captions that capt reads", roots, records=records)


# Those of one line may fit together. A line is used if nothing of the lines above it fits.
_FINDERS: tuple[tuple[Callable[[FirstRecords], Iterator[Candidate]], ...], ...] = (
    (_find_webdataset,),
    (_find_huggingface,),
    (_find_metadata,),
    (_find_urls,),
    (_find_labels, _find_annotations),
    (_find_classes, _find_named, _find_folder),
)
