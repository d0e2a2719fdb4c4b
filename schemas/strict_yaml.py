"""Loads YAML in bounded memory and depth, and refuses what PyYAML accepts without a word."""

from typing import Any

import yaml

MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which multiply what they name, deep nesting, and keys that stand twice."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        if self._depth == MAX_DEPTH:
            what = f"it is nested deeper than {MAX_DEPTH} levels"
            raise yaml.composer.ComposerError(None, None, what, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    what = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                keys.add(key.value)
        entries = super().construct_mapping(node, deep)
        if len(entries) < len(node.value):  # such as 10 and 0xA
            raise yaml.constructor.ConstructorError(None, None, "two keys are equal", node.start_mark)
        return entries


def load_yaml(text: str) -> Any:
    """Loads one YAML document.

    Raises:
        yaml.YAMLError: It is not YAML, is nested deeper than `MAX_DEPTH` levels, has an alias, or has a key twice.
    """
    return yaml.load(text, Loader=_Loader)
