"""Provides the data of a recipe, fetched, generated or given, and compares them with its checksums."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from features.inputs import FileReference, is_collection, list_files
from features.inputs.image_files import is_image_name
from features.io.atomic_files import hash_file, write
from features.io.locations import local_path
from features.synthetic.captchas.dataset import IMAGE_DIR, TRUTH_FILE, synth_captcha
from features.synthetic.scenes.dataset import synth_scenes
from pipelines.datasets.annotation_files import AnnotationFile, remove_gzip_suffix
from pipelines.fetch.fetch_dataset import fetch_dataset
from schemas.errors import CaptError, RecordError, UsageError
from schemas.options.base import Options
from schemas.options.data import Fetch, SynthCaptcha, SynthScenes
from schemas.options.workflows import Reproduce
from schemas.terminal.progress import progress_bar
from workflows.reproduction.recipe import CUSTOM, Recipe, RecipeData
from workflows.reproduction.recipe_files import NamedRecipe

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_MAX_ANNOTATION_BYTES = 2 << 30
_SCENE_SPLITS = ("train", "val", "test")

_log = logging.getLogger("capt.reproduce")


@dataclass(frozen=True)
class Inputs:
    """The data of a recipe.

    Args:
        images: Directories and archives with images.
        annotations: Annotation files.
        labels: Labels to prepare; None for captioners.
        truth: Labels of the test split, if they are not in the store.
        origin: `given`, `fetched` or `generated`.
        images_checked: Numbers of images: `expected` (with a checksum in the recipe), `different` and `unlisted`.
        files_checked: Whether each annotation file with a checksum has it, by name.
        deviations: What differs from the recipe, in sentences.
    """

    images: tuple[str, ...]
    annotations: tuple[str, ...]
    origin: str
    labels: str | None = None
    truth: str | None = None
    images_checked: Mapping[str, int] = field(default_factory=dict)
    files_checked: Mapping[str, bool] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Options of `capt prepare` that name files."""
        labels = {"labels": self.labels} if self.labels else {}
        return {"images": list(self.images), "annotations": list(self.annotations), **labels}

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return {"origin": self.origin, "images": dict(self.images_checked), "files": dict(self.files_checked)}


def provide_inputs(named: NamedRecipe, options: Reproduce, root: Path) -> Inputs:
    """Fetches or generates the data of a recipe below the work directory, or uses the given files, and checks them.

    Raises:
        UsageError: The data are not given completely, or a file of the recipe is missing.
        CaptError: A download fails, or a file cannot be read.
    """
    recipe = named.members[0].recipe
    data = recipe.data
    assert data is not None
    if data.synth:
        return _generate(recipe, data, options, root / "data" / recipe.dataset)
    inputs = _find_inputs(recipe, data, options, root / "data" / recipe.dataset)
    files, deviations = _check_files(data, inputs.annotations, options.split)
    counts: dict[str, int] = {}
    if named.checksums:
        counts = _check_images(inputs.images, read_checksums(named.checksums))
        if counts["different"]:
            share = f"{counts['different']:,} of {counts['expected']:,} images"
            deviations.append(f"{share} differ from those of the recipe: their SHA-256 is another one.")
        if counts["unlisted"]:
            _log.info("%d images are not in the checksum list of the recipe.", counts["unlisted"])
    for deviation in deviations:
        _log.warning("%s The bands do not apply.", deviation)
    return Inputs(
        images=inputs.images,
        annotations=inputs.annotations,
        origin=inputs.origin,
        labels=inputs.labels,
        images_checked=counts,
        files_checked=files,
        deviations=tuple(deviations),
    )


def find_extractors(named: NamedRecipe, given: str | None) -> dict[str, dict[str, Any]]:
    """Returns the options that select the extractor of each member: the given file for a custom one.

    Raises:
        UsageError: The file is missing, has another SHA-256, or is not needed.
    """
    extractors = {member.name: _read_extractor(member.recipe) for member in named.members}
    is_custom = {name: extractor.startswith(CUSTOM) for name, extractor in extractors.items()}
    if given and not any(is_custom.values()):
        extractor = next(iter(extractors.values()))
        message = f"the recipe has the extractor {extractor}" if extractor else "the recipe has no extractor"
        raise UsageError(message, location=f"--extractor {given}", hint="Omit the option.")
    return {
        member.name: {"extractor": _check_extractor(member.recipe, given)} if is_custom[member.name] else {}
        for member in named.members
    }


def _read_extractor(recipe: Recipe) -> str:
    return str(Options.named(recipe.features).get("extractor", ""))


def _check_extractor(recipe: Recipe, given: str | None) -> str:
    digest = recipe.extractor_sha256
    if not given:
        name = _read_extractor(recipe).removeprefix(CUSTOM)
        hint = f"Set --extractor {CUSTOM}FILE."
        raise UsageError(f"the recipe needs {name} (SHA-256 {digest})", location="--extractor", hint=hint)
    path = local_path(given.removeprefix(CUSTOM), "--extractor").absolute()
    if not path.is_file():
        raise UsageError("no such file", location=f"--extractor {given}", hint="Check the path.")
    if (found := hash_file(path)) != digest:
        hint = "Choose the file with this SHA-256, or write a recipe of your own for another extractor."
        message = f"the SHA-256 of the file is {found}, and the recipe needs {digest}"
        raise UsageError(message, location=f"--extractor {given}", hint=hint)
    return f"{CUSTOM}{path}"


def read_checksums(path: Path) -> dict[str, str]:
    """Reads a file in the format of `sha256sum`: the SHA-256 of each file by its name.

    Raises:
        UsageError: The file cannot be read, or a line has another format.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "Write it with `sha256sum`, beside the recipe."
        raise UsageError(f"the checksums cannot be read: {error}", location=str(path), hint=hint) from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not (match := _LINE.fullmatch(line)):
            hint = "Write the file with `sha256sum`."
            raise UsageError("expected a SHA-256 and a name", location=f"{path}: line {number}", hint=hint)
        found[PurePosixPath(match[2]).name] = match[1]
    return found


# === Sources ===


class _Generator(NamedTuple):
    options: type[Options]
    run: Callable[[Any], dict[str, Any]]


_GENERATORS = {
    "scenes": _Generator(SynthScenes, synth_scenes),
    "captcha": _Generator(SynthCaptcha, synth_captcha),
}


def _generate(recipe: Recipe, data: RecipeData, options: Reproduce, directory: Path) -> Inputs:
    assert data.synth is not None
    for name, value in (("--images", options.images), ("--annotations", options.annotations)):
        if value:
            raise UsageError("the recipe generates its data", location=name, hint="Omit the option.")
    generator = _GENERATORS[data.synth.command]
    _log.info("Generating the data.")
    location = f"synth {data.synth.command}"
    generator.run(generator.options.parse({**data.synth.options, "out": str(directory)}, location))
    if data.synth.command == "captcha":
        images = str(directory / IMAGE_DIR)
        return Inputs((images,), (), "generated", images, str(directory / TRUTH_FILE))
    annotations = [directory / "annotations" / f"captions_{split}2017.json" for split in _SCENE_SPLITS]
    found = tuple(str(path) for path in annotations if path.exists())
    return Inputs((str(directory / "images"),), found, "generated")


def _find_inputs(recipe: Recipe, data: RecipeData, options: Reproduce, directory: Path) -> Inputs:
    """Returns the given files; without any, fetches those of the recipe."""
    has_annotations = any(
        "annotations" in one.options.model_fields for one in recipe.training_task.preparations.values()
    )
    if options.images or options.annotations:
        if not options.images:
            raise UsageError("the images are missing", location="--images", hint="Set both options, or neither.")
        if has_annotations and not options.annotations:
            hint = "Set both options, or neither."
            raise UsageError("the annotations are missing", location="--annotations", hint=hint)
        labels = None if has_annotations else (options.annotations or options.images)[0]
        return Inputs(options.images, options.annotations, "given", labels)
    if data.fetch is None:
        names = "--images and --annotations" if has_annotations else "--images"
        raise UsageError("the recipe cannot download its data", location=names, hint=f"Set {names}.")
    images, annotations = data.fetch.images, data.fetch.annotations
    only = [*images, *(name.partition("/")[0] for name in annotations)]
    fetch_dataset(Fetch.parse({"dataset": data.fetch.dataset, "directory": str(directory), "only": only}))
    unpacked = tuple(str(_unpack(directory, name)) for name in annotations)
    return Inputs(tuple(str(directory / name) for name in images), unpacked, "fetched")


def _unpack(directory: Path, name: str) -> Path:
    """Returns a fetched file; a file in an archive is unpacked beside it."""
    archive, _, member = name.partition("/")
    if not member:
        return directory / archive
    path = directory / PurePosixPath(member).name
    if not path.exists():
        try:
            write(path, FileReference(str(directory / archive), member).read(_MAX_ANNOTATION_BYTES))
        except RecordError as error:
            raise CaptError(f"the file cannot be unpacked: {error.reason}", location=f"{directory}/{name}") from None
    return path


# === Checks ===


def _check_images(roots: Sequence[str], checksums: Mapping[str, str]) -> dict[str, int]:
    """Compares images with their checksums, and returns the counts; UsageError if an image is missing."""
    matching, different, unlisted = set[str](), set[str](), 0
    with progress_bar("checking images", len(checksums), "images") as show:
        for file in (file for root in roots for file in list_files(root)):
            name = PurePosixPath(file.name).name
            if (expected := checksums.get(name)) is None:
                unlisted += is_image_name(file.name) is True
                continue
            try:
                found = hashlib.sha256(file.reference.read()).hexdigest()
            except RecordError as error:
                raise CaptError(f"the image cannot be read: {error.reason}", location=file.reference.label) from None
            (matching if found == expected else different).add(name)
            show(len(matching | different), "")
    missing = checksums.keys() - matching - different
    if missing:
        share = f"{len(missing):,} of {len(checksums):,} images of the recipe are missing"
        hint = "Add their directory or archive by --images."
        raise UsageError(f"{share}, such as {min(missing)}", location="--images", hint=hint)
    return {"expected": len(checksums), "different": len(different - matching), "unlisted": unlisted}


def _check_files(data: RecipeData, annotations: Sequence[str], split: str) -> tuple[dict[str, bool], list[str]]:
    """Compares annotation files with their checksums.

    Returns:
        Whether each file has its checksum, by name, and the deviations.

    Raises:
        UsageError: A file is missing.
    """
    needed = {*data.files, *data.split_files.get(split, ())}  # type: ignore[call-overload]
    found = {one.name: one for path in annotations for one in _list_annotations(path, needed)}
    for name in sorted(needed - found.keys()):
        for_split = "" if name in data.files else f" for the split {split}"
        hint = "Add the file by --annotations."
        raise UsageError(f"the file {name} is missing{for_split}", location="--annotations", hint=hint)
    checked = {}
    for name, digests in data.files.items():
        try:
            content = found[name].read_bytes(_MAX_ANNOTATION_BYTES)
        except RecordError as error:
            raise CaptError(f"the file cannot be read: {error.reason}", location=found[name].location) from None
        checked[name] = hashlib.sha256(content).hexdigest() in digests
    different = [name for name, is_equal in checked.items() if not is_equal]
    return checked, [f"{name} differs from that of the recipe: its SHA-256 is another one." for name in different]


def _list_annotations(path: str, names: set[str]) -> Iterator[AnnotationFile]:
    """Yields the files of these names in a directory or archive, or a plain file and those beside it.

    A file may be compressed: its name may end with `.gz`.
    """
    if is_collection(path):
        for file in list_files(path):
            name = remove_gzip_suffix(PurePosixPath(file.name).name)
            if name in names:
                yield AnnotationFile(f"{path}/{file.name}", name, file.reference)
        return
    document = AnnotationFile(path, remove_gzip_suffix(PurePosixPath(path).name), FileReference.from_location(path))
    yield from document.find_siblings(sorted(names))
    yield document
