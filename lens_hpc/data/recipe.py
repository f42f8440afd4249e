"""What a recipe says in text: path patterns, templates of columns, and conditions on columns. Data, never code.

A table is a DataFrame of strings; an empty cell is a missing value.
"""

import ast
import operator
import os
import re
from collections.abc import Callable
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc import UserError

MISSING = ("", "nan", "null", "none", "na", "n/a", "--")
BAND = "band"
FILES_SHOWN = 3


def fields(template: str) -> list[str]:
    """Names of the {fields} of a template, once each, {band} left out."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UserError(f"{template!r} is not a template: {error}; write {{column}} for a column's value") from error
    return [name for name in dict.fromkeys(names) if name != BAND]


def expand(template: str, table: pd.DataFrame, band: str = "") -> pd.Series:
    """The template with each row's values."""
    values = pd.Series("", index=table.index, dtype=object)
    for literal, name, _, _ in Formatter().parse(template):
        values = values + literal
        if name is not None:
            values = values + (band if name == BAND else table[name])
    return values


def match_files(pattern: str, source: Path, band: str) -> pd.DataFrame:
    """A row for each file below `source` whose path matches, its fields as columns, in the order of the paths.

    {name} matches anything but a slash, {name:REGEX} what the regular expression says, {band} the band given.
    """
    regex = re.compile(_regex(pattern, band))
    paths = sorted(
        (Path(folder) / name).relative_to(source).as_posix() for folder, _, names in os.walk(source) for name in names
    )
    rows = [found.groupdict(default="") for path in paths if (found := regex.fullmatch(path))]
    if not rows:
        some = f"such as {', '.join(paths[:FILES_SHOWN])}" if paths else "it holds no files"
        raise UserError(f"{source}: no file matches images = {pattern}; {some}")
    return pd.DataFrame(rows, dtype=object)


def _regex(pattern: str, band: str) -> str:
    parts, seen = [], set()
    for literal, name, regex, _ in Formatter().parse(pattern):
        parts.append(re.escape(literal))
        if name == BAND:
            parts.append(re.escape(band))
        elif name is not None:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{regex or '[^/]+'})")
            seen.add(name)
    try:
        return re.compile("".join(parts)).pattern
    except re.error as error:
        raise UserError(f"images = {pattern}: is not a valid pattern: {error}") from error


# ---- conditions -------------------------------------------------------------------------------------------------

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_TESTS = {
    "startswith": lambda text, part: text.str.startswith(part),
    "endswith": lambda text, part: text.str.endswith(part),
}


def words(text: str) -> list[str]:
    """Names of the columns that a condition uses, and perhaps some words more."""
    return re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'|\"[^\"]*\"", "", text))


def condition(text: str, table: pd.DataFrame) -> np.ndarray:
    """Evaluate a condition such as `n_images > 0 & kind == 'lens'` on each row: (N,) int8 of 1, 0, and -1 for unknown.

    It knows < <= > >= == !=, & | ~ (or and, or, not), + - * /, numbers, 'words', startswith(column, 'word') and
    endswith. A row is unknown where a column that is compared with a number is missing.
    """
    quoted = re.split(r"('[^']*'|\"[^\"]*\")", text)
    quoted[::2] = [
        re.sub(r"&&?", " and ", re.sub(r"\|\|?", " or ", part.replace("~", " not "))) for part in quoted[::2]
    ]
    try:
        tree = ast.parse("".join(quoted).strip(), mode="eval")
    except SyntaxError as error:
        raise UserError(f"columns.label = {text}: is not a condition: {error.msg}") from error
    evaluation = _Evaluation(text, table)
    value = evaluation.truth(tree.body)
    return np.where(evaluation.unknown, -1, value).astype(np.int8)


class _Evaluation:
    """Walks a condition's syntax tree; what it does not know is refused."""

    def __init__(self, text: str, table: pd.DataFrame) -> None:
        self.text, self.table = text, table
        self.unknown = np.zeros(len(table), dtype=bool)

    def truth(self, node: ast.expr) -> Any:
        match node:
            case ast.BoolOp(op=op, values=values):
                combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return combine.reduce([self.truth(value) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.truth(operand)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                pairs = zip(sides, ops, comparators, strict=False)
                return np.logical_and.reduce([self._compare(one, op, other) for one, op, other in pairs])
            case ast.Call(func=ast.Name(id=name), args=[column, ast.Constant(value=str(part))]) if name in _TESTS:
                return _TESTS[name](self._column(column), part).to_numpy(dtype=bool)
        raise self._refusal(node)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> np.ndarray:
        if type(op) not in _COMPARE:
            raise self._refusal(left)
        for word, other in ((left, right), (right, left)):
            if isinstance(word, ast.Constant) and isinstance(word.value, str):
                sides = (word.value, self._column(other)) if word is left else (self._column(other), word.value)
                return np.asarray(_COMPARE[type(op)](*sides))
        return np.asarray(_COMPARE[type(op)](self._number(left), self._number(right)))

    def _number(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return np.full(len(self.table), float(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](self._number(left), self._number(right))
            case ast.Name():
                numbers = pd.to_numeric(self._column(node), errors="coerce").to_numpy(dtype=float)
                self.unknown |= np.isnan(numbers)
                return numbers
        raise self._refusal(node)

    def _column(self, node: ast.expr) -> pd.Series:
        if not isinstance(node, ast.Name):
            raise self._refusal(node)
        if node.id not in self.table.columns:
            raise UserError(
                f"columns.label = {self.text}: no column {node.id!r}; there are {', '.join(self.table.columns)}"
            )
        return self.table[node.id]

    def _refusal(self, node: ast.expr) -> UserError:
        return UserError(f"columns.label = {self.text}: {ast.unparse(node)!r} cannot be understood in a condition")
