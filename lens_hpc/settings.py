"""Reading settings: a YAML file first, overrides upon it, and every problem told at once.

A verb's settings are a frozen pydantic model made of small groups. `load` fills one from a file and
from `key=value` overrides (dotted keys for groups), and raises one `UserError` with the dotted path
of each problem, the value given and what is valid. Paths are relative to the working folder.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from lens_hpc.errors import UserError


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
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]

LONGEST_SHOWN = 80


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
    _refuse_nul(tree)

    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = _problems(kind, error)

    places = [str(file)] if file else []
    if overrides or values or not file:
        places.append(source)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    listed = "\n".join(f"  {problem}" for problem in problems)
    raise UserError(f"{count} in the settings from {' and '.join(places)}:\n{listed}")


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds. Raises UserError when there is none."""
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=_Yaml)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not valid YAML: {error}") from error

    if not isinstance(tree, dict):
        raise UserError(f"{file}: must hold `key: value` lines, not {type(tree).__name__}")
    return tree


def dump(settings: Settings) -> str:
    """Return settings as YAML that `load` reads back equal."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def differences(one: Settings, other: Settings, ignored: Collection[str] = ()) -> list[str]:
    """Describe every setting in which two differ, but for the dotted keys ignored."""
    left = dict(_leaves(one.model_dump(mode="json")))
    right = dict(_leaves(other.model_dump(mode="json")))

    keys = [key for key in left | right if key not in ignored and left.get(key) != right.get(key)]
    return [f"{key}: {left.get(key)} there, {right.get(key)} here" for key in keys]


# ---- describing ----


class Description(NamedTuple):
    """What --help says of one setting."""

    key: str
    """Dotted."""
    default: str
    """As it would be written, or `(required)`."""
    meaning: str


def describe(kind: type[Settings], prefix: str = "") -> list[Description]:
    """Describe every setting of a kind, those of its groups under dotted keys."""
    descriptions = []
    for name, field in kind.model_fields.items():
        group = _group(field.annotation)
        if group:
            descriptions += describe(group, f"{prefix}{name}.")
            continue

        default = field.get_default(call_default_factory=True)
        shown = "(required)" if default is PydanticUndefined else _shown(default)
        meaning = field.description or ""
        if get_origin(field.annotation) is Literal:
            meaning = f"{' | '.join(get_args(field.annotation))}: {meaning}"
        descriptions.append(Description(prefix + name, shown, meaning))
    return descriptions


def _group(annotation: Any) -> type[Settings] | None:
    is_group = isinstance(annotation, type) and issubclass(annotation, Settings)
    return annotation if is_group else None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _shown(value: Any) -> str:
    if value is None:
        text = "null"
    elif isinstance(value, tuple):
        text = f"[{', '.join(map(str, value))}]"
    else:
        text = str(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


# ---- YAML and overrides ----


class _Yaml(yaml.SafeLoader):
    """YAML in which `no`, `on` and dates stay words, and no key stands twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [
            self.construct_object(key, deep=True)
            for key, _ in node.value
            if key.tag != "tag:yaml.org,2002:merge"
        ]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_NOT_RESOLVED = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_RESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF")
)


def _refuse_nul(value: object, key: str = "") -> None:
    """Raise UserError for a text with the character NUL, which neither paths nor HDF5 can hold."""
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{key} = {value!r}: must not hold the character NUL")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            inner_key = f"{key}.{name}" if key else str(name)
            _refuse_nul(name, f"the name {inner_key!r}")
            _refuse_nul(inner, inner_key)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_nul(inner, key)


def _set_override(tree: dict[str, Any], override: str) -> None:
    """Set what `group.key=value` says in a tree of settings."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is not a setting; write key=value, as in train.epochs=5")
    try:
        value = yaml.load(text, Loader=_Yaml)
    except yaml.YAMLError as error:
        told = f"{override!r}: the value is not valid YAML: {error}"
        if text.startswith("{"):
            told += f"\na text that begins with a brace needs quotes: {key}='\"{text}\"'"
        raise UserError(told) from error

    *groups, name = key.split(".")
    for group in groups:
        branch = tree.setdefault(group, {})
        if not isinstance(branch, dict):
            raise UserError(f"{override!r}: {group} is a value, not a group of settings")
        tree = branch
    tree[name] = value


def _merge(tree: dict[str, Any], kind: type[Settings], values: Mapping[str, Any]) -> None:
    """Set values in a tree: the keys of a group one by one, everything else as a whole."""
    for key, given in values.items():
        # `group.key` is a key of a group, as on the command line.
        name, dot, rest = key.partition(".")
        value = {rest: given} if dot else given
        field = kind.model_fields.get(name)
        group = _group(field.annotation) if field else None
        branch = tree.get(name)
        if group and isinstance(value, Mapping) and isinstance(branch, dict):
            _merge(branch, group, value)
        else:
            tree[name] = value


# ---- problems ----

# Pydantic names the alternative of a union that it tried, which is no part of the user's path.
_TYPE_TAG = re.compile(r"\[|^(constrained-)?(str|int|float|bool)$")


def _problems(kind: type[Settings], error: ValidationError) -> list[str]:
    """Explain each problem once, with the alternatives that pydantic tried for one setting."""
    reasons: dict[str, list[str]] = {}
    for problem in error.errors():
        subject, reason = _explain(kind, problem)
        reasons.setdefault(subject, []).append(reason)
    return [subject + ", or ".join(alternatives) for subject, alternatives in reasons.items()]


def _explain(kind: type[Settings], problem: ErrorDetails) -> tuple[str, str]:
    """Return which setting is at fault, with its value, and why."""
    path = ".".join(str(part) for part in problem["loc"] if not _TYPE_TAG.search(str(part)))
    given = _shown(problem["input"])

    if problem["type"] == "missing":
        return f"{path}: ", f"missing; give {path}=... or write it into the file"
    if problem["type"] == "extra_forbidden":
        return f"{path} = {given}: ", f"unknown setting; {_nearest(kind, path)}"

    reason = problem["msg"].removeprefix("Value error, ")
    reason = reason.replace("Input should be", "must be")
    reason = reason.replace("a valid tuple", "a list, as in [a, b]")
    reason = reason.replace("a valid dictionary", "a mapping {a: ..., b: ...}")
    if problem["type"] == "value_error":
        return f"{path}: " if path else "", reason
    return f"{path} = {given}: ", reason


def _nearest(kind: type[Settings], path: str) -> str:
    """Say which setting was probably meant, and which are valid at that place."""
    keys = [setting.key for setting in describe(kind)]
    group, _, leaf = path.rpartition(".")

    siblings = [key for key in keys if key.rpartition(".")[0] == group]
    valid = f"valid here: {', '.join(siblings or keys)}"

    same_leaf = [key for key in keys if key.rpartition(".")[2] == leaf]
    near = same_leaf or difflib.get_close_matches(path, keys, n=1)
    return f"did you mean {near[0]}? ({valid})" if near else valid
