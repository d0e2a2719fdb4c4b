"""Loads YAML in bounded memory and depth, without aliases and duplicate keys."""

from typing import Any

import yaml

MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which can multiply the size of a document, deep nesting, and duplicate keys."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        if self._depth == MAX_DEPTH:
            message = f"it is nested deeper than {MAX_DEPTH} levels"
            raise yaml.composer.ComposerError(None, None, message, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
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
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is set twice", key_node.start_mark
                )
            seen.add(key)
        return entries


def load_yaml(text: str) -> Any:
    """Loads one YAML document.

    Raises:
        yaml.YAMLError: The text is not YAML, is nested deeper than `MAX_DEPTH` levels, has an alias, or repeats a key.
    """
    return yaml.load(text, Loader=_Loader)
