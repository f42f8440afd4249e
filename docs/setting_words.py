"""A setting as an item of a list: its name, default, type in words, and meaning."""

import re
from typing import Annotated, Any

from markdown_text import prose
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from lens_hpc.describing import REQUIRED, Description, kinds_within

WORDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "object": "keys and values",
    "null": "`null`",
}
BOUNDS = {
    "minimum": "from {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "up to {:g}",
    "exclusiveMaximum": "below {:g}",
}
LARGEST_BOUND = 1e9
"""A larger one only keeps nonsense away, and tells a reader nothing."""


def item(kind: type[BaseModel], setting: Description) -> str:
    """Return the item of one setting of a kind."""
    if setting.key not in kind.model_fields and setting.key == "processes":
        # The launcher's, on the command line alone.
        notes, default = "whole number from 1", setting.default
    else:
        field = field_of(kind, setting.key)
        notes, default = _type_of(field), _default(field, setting)

    if default == REQUIRED:
        notes, default = f"{notes}; required", ""
    shown = f" = `{default}`" if default else ""
    meaning = setting.meaning.removeprefix(f"{' | '.join(setting.choices)}: ")
    return f"- **`{setting.key}`**{shown} ({notes})<br>\n  {prose(meaning)}"


def field_of(kind: type[BaseModel], key: str) -> FieldInfo:
    """Return the field that a dotted key names, in a kind of settings or a group of it."""
    first, _, rest = key.partition(".")
    field = kind.model_fields[first]
    if not rest:
        return field
    wanted = rest.partition(".")[0]
    groups = [part for part in groups_of(kind, field) if wanted in part.model_fields]
    return field_of(groups[0], rest)


def groups_of(kind: type[BaseModel], field: FieldInfo) -> list[type[BaseModel]]:
    """Return the groups of settings that a field of a kind may be."""
    annotation = str(field.annotation)
    inner = kinds_within(kind).items()
    return [part for name, part in inner if re.search(rf"\b{name}\b", annotation)]


def _default(field: FieldInfo, setting: Description) -> str:
    """Return what is there without the setting; empty where that depends on the machine."""
    varies = field.default_factory is not None and setting.default not in {"{}", "[]"}
    return "" if varies else setting.default


def _type_of(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    if field.metadata:
        annotation = Annotated[annotation, *field.metadata]
    return _words(TypeAdapter(annotation).json_schema())


def _words(schema: dict[str, Any]) -> str:
    """Return what a JSON schema allows, in a few words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_words(part) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        words = schema.get("enum") or [schema["const"]]
        return " or ".join(f"`{word}`" for word in words)
    if schema.get("format") == "path":
        return "path"

    kind = schema.get("type", "object" if "$ref" in schema else "string")
    if kind == "array":
        members = schema.get("prefixItems")
        inner = members[0] if members else schema.get("items", {})
        count = f"{len(members)} values, each" if members else "list of"
        return f"{count} {_words(inner)}"

    bounds = [
        words.format(schema[key])
        for key, words in BOUNDS.items()
        if abs(schema.get(key, LARGEST_BOUND)) < LARGEST_BOUND
    ]
    return f"{WORDS.get(kind, 'text')} {', '.join(bounds)}".rstrip()
