"""A YAML file of all settings of one kind, each with its meaning: `lens-hpc config VERB`."""

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lens_hpc import verbs
from lens_hpc.describing import describe, group_of
from lens_hpc.errors import UserError
from lens_hpc.settings import Settings
from lens_hpc.yaml_parsing import parse_yaml

WIDTH = 80
ADVICE = "Leave out what shall stay as it is. key=value on the command line goes first."


def file_of_verb(verb: str) -> str:
    """Return a file for a verb: its settings, or the recipe that it takes.

    Raises UserError where it takes no file.
    """
    kind = verbs.module(verb).Settings
    if kind.kind_of_recipe:
        return settings_file(kind.kind_of_recipe, f"For lens-hpc {verb} ... recipe=FILE")
    if not kind.example:
        takers = [name for name in verbs.names() if _takes_a_file(name)]
        raise UserError(
            f"config: {verb} takes no file of settings, but key=value alone: lens-hpc {verb} "
            f"--help lists them. A file is for {', '.join(takers)}"
        )
    return settings_file(kind, f"For lens-hpc {verb} FILE")


def _takes_a_file(verb: str) -> bool:
    kind = verbs.module(verb).Settings
    return bool(kind.example or kind.kind_of_recipe)


def settings_file(kind: type[Settings], title: str) -> str:
    """Return the file: what the kind's example says, and the default of everything else.

    What depends on the machine stands in a comment.
    """
    values = kind.model_validate(parse_yaml(kind.example)).model_dump(mode="json")
    meanings = {setting.key: setting.meaning for setting in describe(kind)}
    lines = [
        *_comment(title, ""),
        *_comment(
            "Leave out what shall stay as it is. key=value on the command line goes first.", ""
        ),
    ]
    for name, field in kind.model_fields.items():
        if name not in kind.not_in_files and not field.exclude:
            lines += ["", *_setting(name, field, values[name], meanings)]
    return "\n".join(lines)


def _setting(key: str, field: FieldInfo, value: Any, meanings: Mapping[str, str]) -> list[str]:
    """Return the lines of a setting, or of a group of them, by its dotted key."""
    *groups, name = key.split(".")
    indent = "  " * len(groups)
    group = group_of(field.annotation)
    if group is None:
        # What another machine has another default for is for the machine to say.
        varies = field.default_factory not in (None, dict)
        line = f"{'# ' * varies}{name}: {_in_yaml(value)}"
        return [*_comment(meanings[key], indent), indent + line]

    lines = [*_comment(_purpose(group), indent), f"{indent}{name}:"]
    for inner_name, inner in group.model_fields.items():
        lines += _setting(f"{key}.{inner_name}", inner, value[inner_name], meanings)
    return lines


def _purpose(group: type[BaseModel]) -> str:
    return (group.__doc__ or "").partition("\n")[0]


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _in_yaml(value: Any) -> str:
    """Return a value on one line, without what is null within it."""
    text = yaml.safe_dump(
        _without_nulls(value), default_flow_style=True, sort_keys=False, width=1 << 20
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
