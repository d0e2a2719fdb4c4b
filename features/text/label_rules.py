"""Checks labels: a label is text that an image can show, in NFC.

text → NFC, folded case → no control or invisible character, only characters of `--charset` → label
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from features.text.charset import normalize_label
from features.text.record_fields import MAX_TEXT, escape_surrogates
from schemas.errors import RecordError, UsageError

_CHARSET = "--charset"
# The joiners have no shape of their own, and change that of their neighbours.
_JOINERS = "\u200c\u200d"
_REASONS = {
    "Cc": "control character",
    "Zl": "control character",
    "Zp": "control character",
    "Cf": "invisible character",
    "Zs": "unusual space",
    "Cs": "invalid text",
}


@dataclass(frozen=True)
class LabelRules:
    """What may be a label. `charset` are the allowed characters, None for all; `fold_case` ignores case."""

    charset: frozenset[str] | None = None
    fold_case: bool = False

    @classmethod
    def parse(cls, charset: str | None, fold_case: bool = False) -> "LabelRules":
        """Returns the rules of `--charset` and `--fold-case`; UsageError for characters that no label has."""
        if charset is None:
            return cls(None, fold_case)
        if not charset:
            raise UsageError("a value is required", location=_CHARSET, hint="Name at least one character.")
        # Each character also alone, because NFC joins a combining mark to the character before it.
        alone = (normalize_label(character, fold_case=fold_case) for character in charset)
        allowed = "".join([normalize_label(charset, fold_case=fold_case), *alone])
        for reason, character in _find_refused(allowed):
            message = f"{describe_character(character)} is not a character of labels: {reason}"
            raise UsageError(message, location=_CHARSET, hint="Omit the character.")
        return cls(frozenset(allowed), fold_case)

    def apply(self, text: str) -> str:
        """Returns the label of a text. Raises RecordError if the text is not a label."""
        label = normalize_label(text, fold_case=self.fold_case)
        if not label.strip().strip(_JOINERS):
            raise RecordError("parse", "no label", "the label is empty")
        if len(label) > MAX_TEXT:
            raise RecordError("parse", "too long", f"{len(label):,} characters, the limit is {MAX_TEXT:,}")
        for reason, character in _find_refused(label):
            raise RecordError("parse", reason, f"{describe_character(character)} in {_show(label)}")
        if label != label.strip():
            raise RecordError("parse", "space at an end", _show(label))
        for character in label:
            if self.charset is not None and character not in self.charset:
                detail = f"{describe_character(character)} in {_show(label)}"
                raise RecordError("parse", f"not in {_CHARSET}", detail)
        return label


ANY_LABEL = LabelRules()


def describe_character(character: str) -> str:
    """Returns a character for a message: itself if it can be seen, its code point, and its name."""
    name = unicodedata.name(character, "")
    visible = f"{character!r} " if is_visible(character) else ""
    return f"{visible}U+{ord(character):04X}{f' {name}' if name else ''}"


def is_visible(character: str) -> bool:
    """Returns whether a character can be seen alone."""
    return character.isprintable() and not unicodedata.combining(character)


def _find_refused(text: str) -> Iterator[tuple[str, str]]:
    """Yields the characters that no label has, each after the reason."""
    for character in text:
        reason = _REASONS.get(unicodedata.category(character))
        if reason and character != " " and character not in _JOINERS:
            yield reason, character


def _show(label: str) -> str:
    return ascii(label[:40]) if not label.isprintable() else repr(escape_surrogates(label[:40]))
