"""Reads the settings in a YAML file, in bounded memory and depth, without aliases and repeated keys.

Importing YAML takes time, so the command line imports this module only for `--config`.
"""

from pathlib import Path
from typing import Any

import yaml

from schemas.errors import UsageError

MAX_BYTES = 1 << 20
MAX_DEPTH = 50


def read_settings(path: str | Path) -> dict[str, Any]:
    """Returns the entries of a YAML file by name; none if the file is empty.

    Raises:
        UsageError: The path is a URI, or the file cannot be read, is not a YAML mapping, is larger than `MAX_BYTES`,
            is nested deeper than `MAX_DEPTH` levels, has an alias, or repeats a key.
    """
    if "://" in str(path):
        raise UsageError("not a local path", location=str(path), hint="Choose a local path.")
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            message = f"the file has more than {MAX_BYTES:,} bytes"
            raise UsageError(message, location=str(path), hint="Choose a YAML file.")
        entries = yaml.load(data.decode(), Loader=_Loader)
    except OSError as error:
        message = f"cannot read the file: {error.strerror or type(error).__name__}"
        raise UsageError(message, location=str(path), hint="Check the path and its permissions.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"not YAML: {error}", location=str(path)) from None
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        raise UsageError("expected `key: value` lines", location=str(path))
    return {str(key): value for key, value in entries.items()}


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which can multiply the size of a document, deep nesting, and duplicate keys."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        refusal = f"it is nested deeper than {MAX_DEPTH} levels" if self._depth == MAX_DEPTH else ""
        if self.check_event(yaml.AliasEvent):
            refusal = "aliases are not supported"
        if refusal:
            raise yaml.composer.ComposerError(None, None, refusal, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        entries = super().construct_mapping(node, deep)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                message = f"the key {key!r} is set twice"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            seen.add(key)
        return entries
