"""Lines of annotation files: decoded one by one, so that a fault costs its line alone, and is told with its place."""

from dataclasses import dataclass

from pipelines.sources.base import Malformed

_SHOWN = 80


@dataclass(frozen=True)
class Line:
    """A line of a document.

    Args:
        place: str. Document and number from 1, `captions.jsonl:17`.
        text: str. The line without its end.
    """

    place: str
    text: str

    def malformed(self, reason: str, why: str = "") -> Malformed:
        """The line as one that cannot be read as a record."""
        return Malformed(self.place, reason, f"{why}: {shown(self.text)}" if why else shown(self.text))


def shown(text: str) -> str:
    """The beginning of a text, for a message."""
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def decoded(line: bytes, place: str) -> Line | Malformed:
    """A line in UTF-8 without its end, or Malformed."""
    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        return Malformed(place, "not UTF-8", f"byte {error.start + 1}: {shown(line.decode('utf-8', 'replace'))}")
    return Malformed(place, "NUL byte", shown(text)) if "\0" in text else Line(place, text)
