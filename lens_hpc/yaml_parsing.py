"""YAML as files of settings may hold it: plain values, bounded, and no key twice.

`no`, `on` and dates stay words. What is wrong with a text is told in words of its own
(`lens_hpc.yaml_mistakes`).
"""

import re
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

from lens_hpc.yaml_mistakes import Mistake, find_mistake, shown_line

MOST_NODES = 200_000
DEEPEST = 50
"""Bounds of a file of settings: a larger one is none, and reading it could take for ever."""
LONGEST_NODE = 50
"""Characters of a text that count as one more node, where an alias repeats it."""
LONGEST_KEY = 80
TAG = "tag:yaml.org,2002:"
TAGS_OF_ANYTHING = {None, "!", TAG + "str", TAG + "map", TAG + "seq"}
TAGS_OF_VALUES = {TAG + "int", TAG + "float", TAG + "bool", TAG + "null"}
"""What settings may be said to be, as in !!str 2024."""


class YamlError(ValueError):
    """A text is not valid YAML."""

    def __init__(self, text: str, mistake: Mistake) -> None:
        super().__init__(mistake.reason)
        self.line = mistake.line
        """Number of the line at fault, from 1."""
        self.shown = shown_line(text, mistake)
        """The line itself."""


def parse_yaml(text: str) -> Any:
    """Return what a text of YAML says. Raises YamlError where it says nothing sound."""
    try:
        return yaml.load(text, Loader=_Yaml)
    except yaml.YAMLError as error:
        raise YamlError(text, find_mistake(text, error)) from error
    except (ValueError, OverflowError) as error:
        # A number of thousands of digits, or with colons, 1:2:3:..., of hundreds of parts.
        mistake = Mistake(1, f"a number in it is none that can be read: {error}")
        raise YamlError(text, mistake) from error


class _Yaml(yaml.SafeLoader):
    """There are no tags but those of plain values, no key stands twice in a mapping, and what
    aliases repeat is counted each time, before it is made."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._check_tag(event)
        before = self._nodes
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(event, f"it is nested more than {DEEPEST} deep")

        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                self._refuse(event, f"the alias {event.anchor} is a part of itself")
            self._nodes += self._sizes[node]
        else:
            long = len(node.value) // LONGEST_NODE if isinstance(node, yaml.ScalarNode) else 0
            self._nodes += 1 + long
            self._sizes[node] = self._nodes - before
        if self._nodes > MOST_NODES:
            self._refuse(event, f"it holds more than {MOST_NODES:,} values; no settings do")
        return node

    def _check_tag(self, event: Any) -> None:
        tag = getattr(event, "tag", None)
        if tag in TAGS_OF_ANYTHING:
            return
        if tag not in TAGS_OF_VALUES:
            self._refuse(event, f"settings have no tags, such as {event.tag}; leave it out")

        # Of another text, the library would raise whatever its parts do.
        text = getattr(event, "value", None)
        resolve: Any = self.resolve
        kind = None if text is None else resolve(yaml.ScalarNode, text, (True, False))
        if kind != tag and (kind, tag) != (TAG + "int", TAG + "float"):
            self._refuse(event, f"the tag {tag} does not fit what follows; leave it out")

    def _refuse(self, event: Any, reason: str) -> NoReturn:
        raise yaml.composer.ComposerError(None, None, reason, event.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # it is refused below

            line = key_node.start_mark.line + 1
            if key in lines:
                shown = str(key)[:LONGEST_KEY]
                _refuse(key_node, f"the key {shown!r} stands twice, first in line {lines[key]}")
            lines[key] = line
            # As in {id}, without a colon.
            if node.flow_style and value_node.start_mark.index == key_node.end_mark.index:
                shown = str(key)[:LONGEST_KEY]
                _refuse(key_node, f'a text with braces needs quotes: "{{{shown}}}"')
        return super().construct_mapping(node, deep)


def _refuse(node: yaml.Node, reason: str) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)


_NOT_RESOLVED = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_RESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF")
)
