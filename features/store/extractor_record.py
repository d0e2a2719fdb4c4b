"""Defines the record of a feature table's extractor, `network.json`, which exists before the table's first commit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from features.store.layout import EXTRACTOR_NAME, extractor_path
from schemas.choices import ExtractorFormat
from schemas.strict_json import parse_json
from schemas.table_config import canonical_json

_GRAPH = "pb"


@dataclass(frozen=True)
class ExtractorRecord:
    """SHA-256 and format of an extractor's file, and the shape of one image's features."""

    sha256: str
    format: ExtractorFormat
    shape: tuple[int, ...]

    def path(self, store: Path) -> Path:
        """Returns the path of the extractor's file."""
        return extractor_path(store, self.sha256, self.format)

    def encode(self) -> bytes:
        """Returns the content of `network.json`. Frozen graphs have no format in it."""
        record: dict[str, Any] = {"network": self.sha256, "shape": list(self.shape)}
        return canonical_json(record if self.format == _GRAPH else {**record, "format": self.format})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parses the content of `network.json`; ValueError if it is not what `encode` returns."""
        try:
            fields = parse_json(data)
            named = fields.get("format", _GRAPH)
            found = next(known for known in get_args(ExtractorFormat) if known == named)
            record = cls(str(fields["network"]), found, tuple(fields["shape"]))
        except (AttributeError, KeyError, StopIteration, TypeError) as error:
            raise ValueError("not a record of an extractor") from error
        if record.encode() != data or not EXTRACTOR_NAME.fullmatch(record.path(Path()).name):
            raise ValueError("not a record of an extractor")
        return record
