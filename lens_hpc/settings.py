"""Reading settings: a YAML file first, overrides upon it, and every problem told at once.

A verb's settings are a frozen pydantic model made of small groups. `load` fills one from a file and
from `key=value` overrides (dotted keys for groups), and raises one `UserError` with the dotted path
of each problem, the value given and what is valid. Paths are relative to the working folder.
"""

import difflib
import os
import re
import select
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NoReturn,
    TypeVar,
    get_args,
    get_origin,
)

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
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]

LONGEST_SHOWN = 80
MOST_PROBLEMS = 20

LARGEST_NUMBER = (1 << 64) - 1
MOST_BYTES = 1 << 20
MOST_NODES = 200_000
DEEPEST = 50
"""Bounds of a file of settings: a larger one is none, and reading it could take for ever."""
LONGEST_NODE = 50
"""Characters of a text that count as one more node, where an alias repeats it."""
TAG = "tag:yaml.org,2002:"
TAGS_OF_ANYTHING = {None, "!", TAG + "str", TAG + "map", TAG + "seq"}
TAGS_OF_VALUES = {TAG + "int", TAG + "float", TAG + "bool", TAG + "null"}
"""What settings may be said to be, as in !!str 2024."""
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
        problems = _problems(kind, error)

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
        tree = _parse_yaml(content.decode("utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: is not valid YAML: {error}") from error

    if not isinstance(tree, dict):
        raise UserError(f"{file}: must hold `key: value` lines, not {type(tree).__name__}")
    return tree


def _read_bytes(file: Path) -> bytes:
    """Return what a file or a pipe holds, at most one byte more than may be."""
    if file.exists() and not (file.is_file() or file.is_fifo()):
        raise UserError(f"{file}: is no file; name one of `key: value` lines")
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
    return annotation if is_group and not annotation.is_one_value else None


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


def _parse_yaml(text: str) -> Any:
    """Return what a text of YAML says; YAMLError or ValueError where it says nothing sound."""
    try:
        return yaml.load(text, Loader=_Yaml)
    except OverflowError as error:  # a number with colons, 1:2:3:..., of hundreds of parts
        raise ValueError(str(error)) from error


class _Yaml(yaml.SafeLoader):
    """YAML in which `no`, `on` and dates stay words, and no key stands twice in a mapping.

    There are no tags but those of plain values, and what aliases repeat is counted each time,
    before it is made.
    """

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
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # it is refused below
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {_shown(key)!r} stands twice", node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_NOT_RESOLVED = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_RESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF")
)


def _refuse_unusable(value: object, key: str = "") -> None:
    """Raise UserError for what neither paths, NumPy nor HDF5 can hold.

    It is a text with the character NUL, or a whole number of more than 64 bits.
    """
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{key} = {_shown(value)!r}: must not hold the character NUL")
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise UserError(f"{key} = {_shown(value)}: must not have more than 64 bits")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            inner_key = f"{key}.{name}" if key else str(name)
            _refuse_unusable(name, f"the name {_shown(inner_key)!r}")
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
        value = _parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        told = f"{_shown(override)!r}: the value is not valid YAML: {error}"
        if text.startswith("{"):
            told += f"\na text that begins with a brace needs quotes: {key}='\"{text}\"'"
        raise UserError(told) from error

    *groups, name = key.split(".")
    if len(groups) > DEEPEST:
        raise UserError(f"{_shown(override)!r}: groups are nested less than {DEEPEST} deep")
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
        elif dot and isinstance(branch, dict):
            # Another key of a mapping: those that it has already stay.
            tree[name] = branch | value
        else:
            tree[name] = value


# ---- problems ----

# Pydantic names the alternative of a union that it tried, which is no part of the user's path.
_TYPE_TAG = re.compile(r"\[|^(constrained-)?(str|int|float|bool)$")


def _problems(kind: type[Settings], error: ValidationError) -> list[str]:
    """Explain each problem once, with the alternatives that pydantic tried for one setting."""
    reasons: dict[str, list[str]] = {}
    found = error.errors()
    for number, problem in enumerate(found):
        if len(reasons) == MOST_PROBLEMS:
            reasons[f"and {len(found) - number:,} more"] = [""]
            break
        subject, reason = _explain(kind, problem)
        reasons.setdefault(subject, []).append(reason)
    return [subject + ", or ".join(alternatives) for subject, alternatives in reasons.items()]


def _explain(kind: type[Settings], problem: ErrorDetails) -> tuple[str, str]:
    """Return which setting is at fault, with its value, and why."""
    parts = [str(part) for part in problem["loc"] if not _TYPE_TAG.search(str(part))]
    path = _shown(".".join(parts))
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
