"""What is wrong with settings, in words for those who wrote them: which one, and what is valid."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lens_hpc.describing import REQUIRED, describe, group_of, kinds_within, show

MOST_PROBLEMS = 20
MOST_FOUND = 200
"""Of those that pydantic finds, more than one for a setting."""
SETTINGS_SHOWN = 3

# Pydantic names the alternative of a union that it tried, which is no part of the user's path.
_TYPE_TAG = re.compile(r"\[|^(constrained-)?(str|int|float|bool)$")

WRONG_KIND = {"model_type", "model_attributes_type", "tuple_type", "dict_type", "string_type"}
"""Problems of a value that is no list, no mapping or no text."""

NUMBER, WHOLE_NUMBER, TRUTH = "must be a number", "must be a whole number", "must be true or false"
FOLDER = "must be the name of a file or folder"
REASONS = {
    "string_type": "must be a text",
    "string_sub_type": "must be a text",
    "string_unicode": "must be a text",
    "path_type": FOLDER,
    "int_type": WHOLE_NUMBER,
    "int_parsing": WHOLE_NUMBER,
    "int_parsing_size": WHOLE_NUMBER,
    "int_from_float": WHOLE_NUMBER,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": TRUTH,
    "bool_parsing": TRUTH,
    "dict_type": "must be a mapping, as in {a: ..., b: ...}",
}
"""By the type of pydantic's problem."""


class _Problem(NamedTuple):
    """One problem of one setting."""

    path: str
    """Dotted."""
    given: str
    """Its value, as a message shows it; empty where the message need not."""
    reason: str
    is_of_kind: bool = False
    """Whether the value is of a wrong kind, so that what is within it may say more."""

    @property
    def subject(self) -> str:
        value = f" = {self.given}" if self.given else ""
        return f"{self.path}{value}: " if self.path else ""


def explain(kind: type[BaseModel], error: ValidationError, file: Path | None) -> list[str]:
    """Explain each problem once, with all that is valid for one setting.

    `file` is the one that was read, where one was.
    """
    found = error.errors()
    explainer = _Explainer(kind, file)
    problems = [
        problem for one in found[: 10 * MOST_PROBLEMS] for problem in explainer.explain(one)
    ]
    problems = [problem for problem in problems if not _says_less(problem, problems)]

    reasons: dict[str, list[str]] = {}
    for problem in problems:
        alternatives = reasons.setdefault(problem.subject, [])
        if problem.reason not in alternatives:
            alternatives.append(problem.reason)
    lines = [subject + ", or ".join(alternatives) for subject, alternatives in reasons.items()]
    if len(lines) > MOST_PROBLEMS:
        lines = [*lines[:MOST_PROBLEMS], f"and {len(lines) - MOST_PROBLEMS:,} more"]
    return lines


def nearest(kind: type[BaseModel], path: str) -> str:
    """Say which setting was probably meant, and which are valid at that place."""
    if ":" in path:
        return "behind a colon must be a blank"
    keys = [setting.key for setting in describe(kind)]
    group, _, leaf = path.rpartition(".")
    while group and not any(_is_in(key, group) for key in keys):
        group = group.rpartition(".")[0]

    names = [key.removeprefix(f"{group}.").partition(".")[0] for key in keys if _is_in(key, group)]
    place = f"valid in {group}" if group else "valid"
    valid = f"{place}: {', '.join(dict.fromkeys(names))}"
    near = nearest_key(keys, path, leaf)
    return f"did you mean {near}? ({valid})" if near else valid


def nearest_key(keys: Sequence[str], path: str, leaf: str) -> str:
    """Return the dotted key that was probably meant; empty where none is near."""
    same_leaf = [key for key in keys if key.rpartition(".")[2] == leaf]
    near = same_leaf or difflib.get_close_matches(path, keys, n=1)
    return near[0] if near else ""


class _Explainer:
    """Explains problems of one kind of settings."""

    def __init__(self, kind: type[BaseModel], file: Path | None) -> None:
        self.kind = kind
        self.file = file
        self.kinds = kinds_within(kind)
        self.described = describe(kind)

    def explain(self, problem: ErrorDetails) -> list[_Problem]:
        path = self._path(problem)
        if problem["type"] == "missing":
            return self._missing(path, problem)

        given = show(problem["input"])
        if problem["type"] == "extra_forbidden":
            return [_Problem(path, given, f"unknown setting; {nearest(self.kind, path)}")]
        if problem["type"] == "value_error":
            return [_Problem(path, "", problem["msg"].removeprefix("Value error, "))]
        is_of_kind = problem["type"] in WRONG_KIND
        return [_Problem(path, given, self._reason(path, problem), is_of_kind)]

    def _path(self, problem: ErrorDetails) -> str:
        parts = [str(part) for part in problem["loc"]]
        return show(".".join(part for part in parts if not self._is_tag(part)))

    def _is_tag(self, part: str) -> bool:
        return part in self.kinds or bool(_TYPE_TAG.search(part))

    def _missing(self, path: str, problem: ErrorDetails) -> list[_Problem]:
        """Explain that a setting is missing: of a group, all that it needs are."""
        inner = [setting for setting in self.described if _is_in(setting.key, path)]
        needed = [
            setting.key
            for setting in self.described
            if setting.default == REQUIRED and (setting in inner or setting.key == path)
        ]
        if inner and not needed:
            some = ", ".join(f"{setting.key}=..." for setting in inner[:SETTINGS_SHOWN])
            return [_Problem(path, "", f"missing; give at least one of its settings: {some}, ...")]

        leaf = path.rpartition(".")[2]
        if leaf.isdecimal():
            return [_Problem(path.rpartition(".")[0], "", f"must have {int(leaf) + 1} values")]
        where = f" or write it into {self.file}" if self.file else ""
        return [
            _Problem(key, "", f"missing{self._meaning(key)}; give {key}=...{where}")
            for key in needed or [path]
        ]

    def _meaning(self, key: str) -> str:
        """Return, for a message, what a setting is: the first words of its description."""
        meanings = [setting.meaning for setting in self.described if setting.key == key]
        first = re.split(r"[.:;,(]", meanings[0])[0] if meanings else ""
        if first[1:2].islower() or first[1:2] == " ":
            first = first[0].lower() + first[1:]
        return f" ({first.strip()})" if first else ""

    def _reason(self, path: str, problem: ErrorDetails) -> str:
        name, value = problem["type"], problem["input"]
        context: dict[str, Any] = problem.get("ctx", {})
        if name in {"model_type", "model_attributes_type"}:
            return self._of_group(path, value, self.kinds[context["class_name"]])
        if name == "tuple_type":
            return _of_list(value)
        if name == "literal_error":
            return _of_words(value, context["expected"])
        if name == "float_parsing" and re.fullmatch(r"-?\d+,\d+", str(value)):
            return f"{NUMBER}; write {str(value).replace(',', '.')}"
        if name in REASONS:
            return REASONS[name]
        if name in REASONS_WITH:
            return REASONS_WITH[name](context)
        return problem["msg"].replace("Input should be", "must be")

    def _of_group(self, path: str, value: object, group: type[BaseModel]) -> str:
        """Explain that a value stands where a group, or a value of several parts, must be."""
        names = list(group.model_fields)
        if group_of(group) is None:
            return f"must be a mapping with one of {', '.join(names)}, as in {{{names[0]}: ...}}"

        some = ", ".join(names[:SETTINGS_SHOWN]) + ", ..." * (len(names) > SETTINGS_SHOWN)
        if value is None:
            return f"is a group of settings; they stand below it, indented: {some}"
        if isinstance(value, list):
            return f"is a group of settings ({some}), no list; leave out the dashes or brackets"
        needed = [name for name, field in group.model_fields.items() if field.is_required()]
        if len(needed) == 1:
            return f"is a group of settings; write {path}.{needed[0]}={show(value)}"
        return f"is a group of settings; give one of them, as {path}.{names[0]}=..."


def _of_list(value: object) -> str:
    if isinstance(value, str):
        return f"must be a list; write [{', '.join(re.split(r'[ ,]+', show(value)))}]"
    return "must be a list, as in [a, b]"


def _of_words(value: object, expected: str) -> str:
    """Explain a word that is none of those expected: pydantic lists these in quotes."""
    words = expected.replace("'", "")
    near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", expected), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"must be {words}{hint}"


def _count(context: dict[str, Any], limit: str) -> str:
    number = context[limit]
    return f"{number} value" + "s" * (number != 1)


REASONS_WITH: dict[str, Callable[[dict[str, Any]], str]] = {
    "too_short": lambda context: f"must have at least {_count(context, 'min_length')}",
    "too_long": lambda context: f"must have at most {_count(context, 'max_length')}",
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
}
"""By the type of pydantic's problem, from what it says more."""


def _says_less(problem: _Problem, others: Sequence[_Problem]) -> bool:
    """Say whether another problem is within the same value, which then is of the right kind."""
    return problem.is_of_kind and any(_is_in(other.path, problem.path) for other in others)


def _is_in(key: str, group: str) -> bool:
    return key.startswith(f"{group}.") if group else True
