"""Defines manifests: the files and the metadata of one commit, as canonical JSON named by its SHA-256.

A manifest contains no time, host or run, so equal commits have equal manifests; only models record times.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from schemas.choices import ExtractorFormat, ResizeMode
from schemas.frozen import Frozen
from schemas.table_config import canonical_json, compute_digest

MANIFEST_VERSION = 1


def is_relative_path(path: str) -> bool:
    """Returns whether a path can be that of a file in a manifest: parts of usual characters, neither `.` nor `..`."""
    is_usual = re.fullmatch(r"[\w.][\w. -]*(/[\w.][\w. -]*)*", path) is not None
    return is_usual and not any(part in (".", "..") for part in path.split("/"))


def _relative(path: str) -> str:
    if not is_relative_path(path):
        raise ValueError(f"expected a path inside the table, got {path!r}")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FileEntry(Frozen):
    """A referenced file: its path within the table, size in bytes and SHA-256."""

    path: RelativePath
    bytes: int = Field(ge=0)
    sha256: Sha256


class Shard(Frozen):
    """The rows whose keys begin with one binary prefix, in one file.

    Args:
        number: The prefix, from 0.
        count: Number of prefixes, a power of two.
        first_key, last_key: Smallest and largest key, hexadecimal.
        data: The file with the rows, sorted by key.
        index: The file with the offsets of each row's values; None for tables without tensors.
    """

    number: int = Field(ge=0)
    count: int = Field(ge=1)
    rows: int = Field(ge=1)
    first_key: Sha256
    last_key: Sha256
    data: FileEntry
    index: FileEntry | None = None

    def entries(self) -> list[FileEntry]:
        return [entry for entry in (self.data, self.index) if entry]


class FeatureMetadata(Frozen):
    """The provenance of a commit of features.

    Args:
        shape: Shape of one row's value.
        network: SHA-256 of the extractor, `networks/<sha256>.<format>` in the store; None for imported features.
        network_format: Format of the extractor: `pb`, a frozen graph; `keras`, a Keras model; or `openvino`, quantized.
        numerics: The numerics class: device, instruction set or chip, library and precision; `pixels`; or `imported`.
        toolchain: Versions of libraries. `pipelines.jobs.provenance` says on which of them the bits of rows depend.
    """

    kind: Literal["features"] = "features"
    shape: tuple[int, ...]
    network: Sha256 | None
    network_format: ExtractorFormat = Field(default="pb", exclude_if=lambda network_format: network_format == "pb")
    numerics: str
    toolchain: dict[str, str]

    @property
    def network_file(self) -> str | None:
        """Name of the extractor's file in `networks`; None for imported features."""
        return f"{self.network}.{self.network_format}" if self.network else None


class CaptionMetadata(Frozen):
    """The counts of a commit of captions.

    Args:
        inputs: Digest of all captions and their splits.
        words: Vocabulary size, including the special tokens.
        captions, tokens, unknown: Number of captions, of tokens and of out-of-vocabulary tokens by split.
        truncated: Number of truncated captions.
        longest: Length of the longest caption in tokens, including start and end.
        lengths: Number of captions by split and length in tokens; None in commits of capt 0.1.
    """

    kind: Literal["captions"] = "captions"
    inputs: Sha256
    words: int
    captions: dict[str, int]
    tokens: dict[str, int]
    unknown: dict[str, int]
    truncated: int
    longest: int
    lengths: dict[str, dict[int, int]] | None = Field(default=None, exclude_if=lambda lengths: lengths is None)

    @property
    def empty_captions(self) -> int:
        """Number of captions that consist of a start and an end token."""
        return sum(counts.get(2, 0) for counts in (self.lengths or {}).values())


class LabelFormat(Frozen):
    """How a label file separates an ID from its label, and ends a line."""

    separator: Literal[" ", "\t"] = " "
    line_end: Literal["\n", "\r\n", "\r"] = "\n"


class InputSize(Frozen):
    """The size at which images of text are stored, in pixels, and how they are resized.

    Args:
        reason: Description of where the size comes from.
    """

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    resize_mode: ResizeMode
    reason: str

    def __str__(self) -> str:
        return f"{self.height}×{self.width} pixels, {self.resize_mode}: {self.reason}"


class DatasetMetadata(Frozen):
    """The provenance of a dataset, and the form of its labels.

    Args:
        source: The dataset type.
        images: Number of images in the catalog by split.
        label_format: Format of the label file; None without one, and for a space and a line feed.
        input_size: Size of the stored images when the dataset was prepared first; None unless they are images of text.
        fold_case: Whether case is folded in the labels.
    """

    kind: Literal["dataset"] = "dataset"
    source: str
    images: dict[str, int]
    label_format: LabelFormat | None = Field(default=None, exclude_if=lambda label_format: label_format is None)
    input_size: InputSize | None = Field(default=None, exclude_if=lambda input_size: input_size is None)
    fold_case: bool = Field(default=False, exclude_if=lambda fold_case: not fold_case)


RunName = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Decision = Literal["promoted", "rejected", "stopped", "failed", "abandoned", "stale", "chosen", "rolled_back"]


class ModelMetadata(Frozen):
    """One decision about a registered model, and the champion after it.

    Args:
        decision: Decision of a retraining. The challenger was `promoted` or `rejected`, was `stopped` by the data
            checks before training, `failed`, or was `abandoned` for newer data. `stale` means that the champion changed
            during the comparison. Decision of a user: a run was `chosen`, or the champion was `rolled_back`.
        run: The run that the decision is about, `runs/<run>` in the model's directory; None without a run.
        champion: The champion after the decision; None before the first champion.
        decided_at: Time of the decision in UTC, ISO 8601.
        lineage: Inputs of the decision: settings, data, comparison, scores and versions.
    """

    kind: Literal["model"] = "model"
    task: str
    decision: Decision
    run: RunName | None
    champion: RunName | None
    reasons: tuple[str, ...]
    decided_at: str
    lineage: dict[str, JsonValue] = Field(default_factory=dict)


class DroppedMetadata(Frozen):
    """A commit that only removes the commits that it replaces."""

    kind: Literal["dropped"] = "dropped"


class Manifest(Frozen):
    """One commit of one table.

    Args:
        table: Fingerprint of the table, or name of the dataset or model.
        replaces: Digests of the manifests that this one replaces.
        shards: The rows that it adds.
        files: Other files by role: `vocabulary`, `catalog`, `failures`, `transform/...`; of a model, by path.
        facts: The commit metadata.
    """

    version: Literal[1] = 1
    table: str
    replaces: tuple[Sha256, ...] = ()
    shards: tuple[Shard, ...] = ()
    files: dict[str, FileEntry] = Field(default_factory=dict)
    facts: Annotated[
        FeatureMetadata | CaptionMetadata | DatasetMetadata | ModelMetadata | DroppedMetadata,
        Field(discriminator="kind"),
    ]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's canonical JSON, which is its name."""
        return compute_digest(self.model_dump(mode="json"))

    def to_json(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    def entries(self) -> list[FileEntry]:
        """Returns all referenced files."""
        return [*(entry for shard in self.shards for entry in shard.entries()), *self.files.values()]
