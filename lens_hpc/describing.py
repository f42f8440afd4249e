"""What is known of a kind of settings: the name, default and meaning of each."""

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

LONGEST_SHOWN = 80
REQUIRED = "(required)"


class Description(NamedTuple):
    """What --help says of one setting."""

    key: str
    """Dotted."""
    default: str
    """As it would be written, or `(required)`."""
    meaning: str
    choices: tuple[str, ...] = ()
    """Words that are valid, where nothing else is."""
    is_of_choice: bool = False
    """Whether its group need not be there."""


def describe(
    kind: type[BaseModel], prefix: str = "", is_of_choice: bool = False
) -> list[Description]:
    """Describe every setting of a kind, those of its groups under dotted keys."""
    descriptions = []
    for name, field in kind.model_fields.items():
        key = prefix + name
        group = group_of(field.annotation)
        if group:
            descriptions += describe(group, f"{key}.", is_of_choice)
            continue

        default = field.get_default(call_default_factory=True)
        shown = REQUIRED if default is PydanticUndefined else show(default)
        choices = _choices(field.annotation)
        meaning = field.description or ""
        if get_origin(field.annotation) is Literal:
            meaning = f"{' | '.join(choices)}: {meaning}"
        descriptions.append(Description(key, shown, meaning, choices, is_of_choice))

        for alternative in _alternatives(field.annotation):
            if group_of(alternative):
                descriptions += describe(alternative, f"{key}.", is_of_choice=True)
    return descriptions


def group_of(annotation: Any) -> type[BaseModel] | None:
    """Return the kind of a group of settings; None for what is one value."""
    is_group = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_group and not getattr(annotation, "is_one_value", False) else None


def kinds_within(kind: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the kinds of all groups and values of several parts within, by their class's name."""
    found: dict[str, type[BaseModel]] = {}
    for field in kind.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= {part.__name__: part} | kinds_within(part)
    return found


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return "true", "false"
    alternatives = _alternatives(annotation) or (annotation,)
    literals = [part for part in alternatives if get_origin(part) is Literal]
    return tuple(str(word) for literal in literals for word in get_args(literal))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield a type and those that it is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def show(value: Any) -> str:
    """Return a value as YAML has it on one line, cut where it is long."""
    text = _as_yaml(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _as_yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        pairs = [f"{_as_yaml(key)}: {_as_yaml(inner)}" for key, inner in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return str(value)
