"""Manifests: what a commit put into a table, file by file.

A manifest is canonical JSON and is named by its own SHA-256. Paths are relative to the table's directory. Nothing in
it tells the time, the host or the run, so equal commits have equal manifests; but for those of models, which are a
history of decisions and tell when each was taken.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from schemas.frozen import Frozen
from schemas.table_config import canonical_json, compute_digest

MANIFEST_VERSION = 1


def _relative(path: str) -> str:
    if not re.fullmatch(r"[\w.][\w. -]*(/[\w.][\w. -]*)*", path) or any(p in (".", "..") for p in path.split("/")):
        raise ValueError(f"a path inside the table is expected, got {path!r}")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FileEntry(Frozen):
    """A file that a manifest names: its path within the table, size in bytes and SHA-256."""

    path: RelativePath
    bytes: int = Field(ge=0)
    sha256: Sha256


class Shard(Frozen):
    """A shard: the rows whose keys begin with one binary prefix.

    Args:
        number: int. The prefix, from 0.
        count: int. How many prefixes there are, a power of two.
        rows: int. Rows in the shard, sorted by key.
        first_key, last_key: str. Smallest and largest key, hexadecimal.
        data: FileEntry. The rows.
        index: FileEntry or None. The offset of each row's values; None for tables without fixed-size values.
    """

    number: int = Field(ge=0)
    count: int = Field(ge=1)
    rows: int = Field(ge=1)
    first_key: Sha256
    last_key: Sha256
    data: FileEntry
    index: FileEntry | None = None

    def entries(self) -> list[FileEntry]:
        """Returns the files of the shard."""
        return [entry for entry in (self.data, self.index) if entry]


class FeatureMetadata(Frozen):
    """What a commit of features was made with.

    Args:
        shape: tuple of int. Shape of one row's value.
        network: Sha256. The frozen graph, `networks/<sha256>.pb` in the store.
        numerics: str. The numerics class: device and instruction set.
        toolchain: dict. Versions of the libraries that bits depend on.
    """

    kind: Literal["features"] = "features"
    shape: tuple[int, ...]
    network: Sha256
    numerics: str
    toolchain: dict[str, str]


class CaptionMetadata(Frozen):
    """What a commit of captions holds.

    Args:
        inputs: Sha256. The digest of all captions and their splits.
        words: int. Ids in the vocabulary, the special ones included.
        captions, tokens, unknown: dict. Captions, their tokens, and unknown words among them, by split.
        truncated: int. Captions that were cut.
        longest: int. Tokens of the longest caption, start and end included.
        lengths: dict or None. By split, how many captions have so many tokens; None in commits of capt 0.1.
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
        """Captions that have a start and an end token and nothing between."""
        return sum(counts.get(2, 0) for counts in (self.lengths or {}).values())


class DatasetMetadata(Frozen):
    """What a commit of a dataset says: the source kind, and images of its catalog by split."""

    kind: Literal["dataset"] = "dataset"
    source: str
    images: dict[str, int]


RunName = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Decision = Literal["promoted", "rejected", "stopped", "failed", "abandoned", "stale", "chosen", "rolled_back"]


class ModelMetadata(Frozen):
    """What a commit of a model says: one decision, and which run answers from then on.

    Args:
        task: str. What the runs do: `captioner` or `captcha`.
        decision: str. Of a retraining: the challenger was `promoted` or `rejected`, was `stopped` by its rules before
            training, `failed`, was `abandoned` for newer data, or `stale`: the champion changed while it was compared.
            Of a person: a run was `chosen`, or the champion `rolled_back`.
        run: str or None. The run that it is about, `runs/<run>` in the model's directory; None where none came about.
        champion: str or None. The run that answers after it; None where there is none yet.
        reasons: tuple of str. The reasons, a sentence each.
        decided_at: str. The time of the decision in UTC, ISO 8601.
        lineage: dict. What went into it: settings, data, comparison, scores, versions.
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
    """What a commit says that takes out what it replaces and adds nothing."""

    kind: Literal["dropped"] = "dropped"


class Manifest(Frozen):
    """One commit of one table.

    Args:
        table: str. The fingerprint, or the dataset's or model's name, that the table is called by.
        replaces: tuple of str. Digests of the manifests that this one stands in for.
        shards: tuple of Shard. The rows it adds.
        files: dict. Other files by role: `vocabulary`, `catalog`, `failures`, `transform/...`; of a model, by path.
        facts: what the rows were made with.
        version: int. Version of the store's format.
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
        """The manifest's name: the SHA-256 of its canonical JSON."""
        return compute_digest(self.model_dump(mode="json"))

    def to_json(self) -> bytes:
        """The canonical JSON that the digest is taken of."""
        return canonical_json(self.model_dump(mode="json"))

    def entries(self) -> list[FileEntry]:
        """Every file that the manifest names."""
        data = [entry for shard in self.shards for entry in shard.entries()]
        return data + list(self.files.values())
