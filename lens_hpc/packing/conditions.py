"""Conditions on columns, such as `n_images > 0 & kind == 'lens'`: data, never code.

A condition is parsed by Python's own parser, and the syntax tree is evaluated here. What this
module does not know is refused, so a recipe from outside cannot run anything.
"""

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.errors import UserError

_QUOTED = r"'[^']*'|\"[^\"]*\""
_NAME = r"[A-Za-z_]\w*"

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_TEXT_TESTS = ("startswith", "endswith")


def words_in_condition(text: str) -> list[str]:
    """Return the names of the columns that a condition uses, and perhaps some more words."""
    return re.findall(_NAME, re.sub(_QUOTED, "", text))


def evaluate_condition(text: str, table: pd.DataFrame) -> np.ndarray:
    """Evaluate a condition on each row: (N,) int8 of 1 true, 0 false, -1 unknown.

    It may use < <= > >= == !=, & | ~ (or and, or, not), + - * /, numbers, 'words',
    startswith(column, 'word') and endswith. A row is unknown where a column that is compared with
    a number is missing. Raises UserError for anything else.
    """
    try:
        tree = ast.parse(_with_python_words(text).strip(), mode="eval")
    except SyntaxError as error:
        raise UserError(f"columns.label = {text}: is not a condition: {error.msg}") from error

    evaluation = _Evaluation(text, table)
    truth = evaluation.truth(tree.body)
    return np.where(evaluation.unknown, -1, truth).astype(np.int8)


def _with_python_words(text: str) -> str:
    """Write & | ~ as and, or, not, which bind less than comparisons; quoted words stay."""
    parts = re.split(f"({_QUOTED})", text)

    # Every second part is a quoted word.
    for number in range(0, len(parts), 2):
        part = parts[number].replace("~", " not ")
        part = re.sub(r"\|\|?", " or ", part)
        parts[number] = re.sub(r"&&?", " and ", part)
    return "".join(parts)


class _Evaluation:
    """Evaluates a condition's syntax tree on a table, and notes the rows that are unknown."""

    def __init__(self, text: str, table: pd.DataFrame) -> None:
        self.text = text
        self.table = table
        self.unknown = np.zeros(len(table), dtype=bool)

    def truth(self, node: ast.expr) -> Any:
        """Return (N,) bool: whether an expression is true for each row."""
        match node:
            case ast.BoolOp(op=op, values=values):
                combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
                truths = [self.truth(value) for value in values]
                return combine.reduce(truths)

            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.truth(operand)

            case ast.Compare():
                return self._compare_all(node)

            # A test of text, as in startswith(column, 'word').
            case ast.Call(
                func=ast.Name(id=name),
                args=[column_node, ast.Constant(value=str(word))],
                keywords=[],
            ) if name in _TEXT_TESTS:
                test = getattr(self._column(column_node).str, name)
                return test(word).to_numpy(dtype=bool)

        raise self._not_understood(node)

    def _compare_all(self, node: ast.Compare) -> Any:
        """Evaluate a chain of comparisons, such as `1 < mag <= 3`."""
        results = []
        left = node.left
        for comparison, right in zip(node.ops, node.comparators, strict=True):
            results.append(self._compare(left, comparison, right))
            left = right
        return np.logical_and.reduce(results)

    def _compare(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr) -> np.ndarray:
        compare = _COMPARISONS.get(type(comparison))
        if compare is None:
            raise self._not_understood(left)

        # A word on either side makes it a comparison of texts.
        left_side: Any
        right_side: Any
        match left, right:
            case ast.Constant(value=str(word)), _:
                left_side = word
                right_side = self._column(right)
            case _, ast.Constant(value=str(word)):
                left_side = self._column(left)
                right_side = word
            case _:
                left_side = self._number(left)
                right_side = self._number(right)
        return np.asarray(compare(left_side, right_side))

    def _number(self, node: ast.expr) -> Any:
        """Return the value of an expression in each row, (N,) float."""
        match node:
            case ast.Constant(value=int() | float() as number):
                return np.full(len(self.table), float(number))

            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)

            case ast.BinOp(left=left, op=op, right=right):
                calculate = _ARITHMETIC.get(type(op))
                if calculate is not None:
                    return calculate(self._number(left), self._number(right))

            # A missing value makes the row unknown, whatever the rest of the condition says.
            case ast.Name():
                column = pd.to_numeric(self._column(node), errors="coerce")
                numbers = column.to_numpy(dtype=float)
                self.unknown |= np.isnan(numbers)
                return numbers

        raise self._not_understood(node)

    def _column(self, node: ast.expr) -> pd.Series:
        if not isinstance(node, ast.Name):
            raise self._not_understood(node)
        if node.id not in self.table.columns:
            columns = ", ".join(self.table.columns)
            raise self._error(f"no column {node.id!r}; there are {columns}")
        return self.table[node.id]

    def _not_understood(self, node: ast.expr) -> UserError:
        return self._error(f"{ast.unparse(node)!r} cannot be understood in a condition")

    def _error(self, reason: str) -> UserError:
        return UserError(f"columns.label = {self.text}: {reason}")
