"""Reading settings: a YAML file first, overrides upon it, and every problem told at once.

A verb's settings are a frozen pydantic model made of small groups. `load` fills one from a file and
from `key=value` overrides (dotted keys for groups), and raises one `UserError` with the dotted path
of each problem, the value given and what is valid. Paths are relative to the working folder.
"""

import os
import re
import select
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lens_hpc import layout
from lens_hpc.describing import group_of, show
from lens_hpc.errors import UserError
from lens_hpc.setting_problems import MOST_PROBLEMS, explain
from lens_hpc.yaml_parsing import DEEPEST, YamlError, parse_yaml


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such home folder; write the path in full") from error


def _path_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


FilePath = Annotated[Path, AfterValidator(_expand_home)]
WordOrPath = Annotated[str, BeforeValidator(_path_as_text)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]

LARGEST_NUMBER = (1 << 64) - 1
MOST_BYTES = 1 << 20
"""Of a file of settings: a larger one is none."""
TEMPLATE = re.compile(r"^\{[A-Za-z_]\w*(\}|:[^\s}])")
"""How a text begins that has a field first, such as {id}.npy: no mapping of YAML does."""
SECONDS_OF_PIPE = 60
"""So long somebody may take to begin to write into a pipe."""


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, a docstring for each field."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )

    not_in_files: ClassVar[frozenset[str]] = frozenset()
    """Settings that a file, which may be somebody else's, must not make."""
    is_one_value: ClassVar[bool] = False
    """Whether they are one value, such as a distribution: given as a whole, not key by key."""
    shown_first: ClassVar[tuple[str, ...]] = ()
    """Dotted keys of those that people change first; where there are none, --help shows all."""
    example: ClassVar[str] = ""
    """A YAML file of these settings, where they come in one."""
    kind_of_recipe: "ClassVar[type[Settings] | None]" = None
    """What the file holds that a setting `recipe` names, where there is one."""


AnySettings = TypeVar("AnySettings", bound=Settings)


# ---- reading ----


def load(
    kind: type[AnySettings],
    file: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    source: str = "the command line",
) -> AnySettings:
    """Read settings of one kind.

    A YAML `file` comes first, then `key=value` texts, then `values` as Python has them. `source`
    is what an error calls the place where the last two stood. Raises UserError with every problem.
    A model's validators learn from their context the `file`, and as `given` what stood not in it:
    dotted keys.
    """
    tree = read_yaml(file) if file else {}
    for name in kind.not_in_files & tree.keys():
        raise UserError(
            f"{file}: {name} must not stand in a file, which may be somebody else's; "
            f"give {name}=... yourself"
        )
    for override in overrides:
        _set_override(tree, override)
    _merge(tree, kind, values or {})
    _refuse_unusable(tree)

    given = {override.partition("=")[0] for override in overrides} | {*(values or {})}
    try:
        context = {"file": file, "given": given} if file else None
        return kind.model_validate(tree, context=context)
    except ValidationError as error:
        problems = explain(kind, error, file)

    places = [str(file)] if file else []
    if overrides or values or not file:
        places.append(source)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    if len(problems) > MOST_PROBLEMS:
        count = f"more than {MOST_PROBLEMS} problems"
    listed = "\n".join(f"  {problem}" for problem in problems)
    raise UserError(f"{count} in the settings from {' and '.join(places)}:\n{listed}")


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds. Raises UserError when there is none."""
    try:
        content = _read_bytes(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{file}: has more than {MOST_BYTES:,} bytes; no file of settings has")

    try:
        tree = parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no text; name a YAML file of `key: value` lines") from error
    except YamlError as error:
        told = f"{file}: line {error.line} is not valid YAML: {error}"
        raise UserError(f"{told}\n  {error.shown}".rstrip()) from error

    if tree is None:
        raise UserError(f"{file}: is empty; write `key: value` lines into it")
    if not isinstance(tree, dict):
        kind = "a list" if isinstance(tree, list) else "a value"
        raise UserError(f"{file}: must hold `key: value` lines, not {kind}")
    return tree


def _read_bytes(file: Path) -> bytes:
    """Return what a file or a pipe holds, at most one byte more than may be."""
    if (file / layout.CONFIG).is_file():
        raise UserError(f"{file}: is a folder; its settings are in {file / layout.CONFIG}")
    if file.exists() and not (file.is_file() or file.is_fifo()):
        raise UserError(f"{file}: is no file; name a YAML file of `key: value` lines")
    # Without O_NONBLOCK, it would wait for whoever opens the pipe's other end.
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:  # noqa: PTH123
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        if not poll.poll(SECONDS_OF_PIPE * 1000):
            raise UserError(f"{file}: is a pipe into which nothing is written; name a file")
        os.set_blocking(opened.fileno(), True)
        return opened.read(MOST_BYTES + 1)


def dump(settings: Settings) -> str:
    """Return settings as YAML that `load` reads back equal."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def differences(one: Settings, other: Settings, ignored: Collection[str] = ()) -> list[str]:
    """Describe every setting in which two differ, but for the dotted keys ignored."""
    left = dict(leaves(one.model_dump(mode="json")))
    right = dict(leaves(other.model_dump(mode="json")))

    keys = [key for key in left | right if key not in ignored and left.get(key) != right.get(key)]
    return [f"{key}: {left.get(key)} there, {right.get(key)} here" for key in keys]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting in a tree of groups."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# ---- overrides ----


def _refuse_unusable(value: object, key: str = "") -> None:
    """Raise UserError for what neither paths, NumPy nor HDF5 can hold.

    It is a text with the character NUL, or a whole number of more than 64 bits.
    """
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{key} = {show(value)!r}: must not hold the character NUL")
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise UserError(f"{key} = {show(value)}: must not have more than 64 bits")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            inner_key = f"{key}.{name}" if key else str(name)
            _refuse_unusable(name, f"the name {show(inner_key)!r}")
            _refuse_unusable(inner, inner_key)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_unusable(inner, key)


def _set_override(tree: dict[str, Any], override: str) -> None:
    """Set what `group.key=value` says in a tree of settings."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is not a setting; write key=value, as in train.epochs=5")
    try:
        value = text if TEMPLATE.match(text) else parse_yaml(text)
    except YamlError as error:
        told = f"{show(override)}: the value is not valid YAML: {error}"
        raise UserError(told) from error

    *groups, name = key.split(".")
    if len(groups) > DEEPEST:
        raise UserError(f"{show(override)!r}: groups are nested less than {DEEPEST} deep")
    for group in groups:
        branch = tree.get(group)
        if branch is None:  # also where a file has the group's name and nothing below
            branch = tree[group] = {}
        if not isinstance(branch, dict):
            raise UserError(f"{override!r}: {group} is a value, not a group of settings")
        tree = branch
    tree[name] = value


def _merge(tree: dict[str, Any], kind: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Set values in a tree: the keys of a group one by one, everything else as a whole."""
    for key, given in values.items():
        # `group.key` is a key of a group, as on the command line.
        name, dot, rest = key.partition(".")
        value = {rest: given} if dot else given
        field = kind.model_fields.get(name)
        group = group_of(field.annotation) if field else None
        branch = tree.get(name)
        if group and isinstance(value, Mapping) and isinstance(branch, dict):
            _merge(branch, group, value)
        elif dot and isinstance(branch, dict):
            # Another key of a mapping: those that it has already stay.
            tree[name] = branch | value
        else:
            tree[name] = value
