"""Conditions on columns, such as `n_images > 0 & kind == 'lens'`: data, never code.

A condition is parsed by Python's own parser, and the syntax tree is evaluated here. What this
module does not know is refused, so a recipe from outside cannot run anything.

The logic has three values. A comparison with a missing cell is unknown; `a & b` is false where one
of them is false, `a | b` is true where one is true, and else unknown where one of them is.
"""

import ast
import keyword
import re
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable

_QUOTED = r"'[^']*'|\"[^\"]*\""
_BACKTICKED = r"`[^`]+`"
_NAME = r"[A-Za-z_]\w*"
_PARTS = re.compile(f"({_QUOTED}|{_BACKTICKED}|{_NAME})")
QUOTES = ("'", '"')
LONGEST = 500_000
DEEPEST = 100
"""Bounds of a condition: its length in characters, and how deep its parts may be nested."""
LONGEST_SHOWN = 200
_OPERATORS = ("and", "or", "not", "in")

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_MEMBERSHIPS = (ast.In, ast.NotIn)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}
_TEXT_TESTS: dict[str, Callable[..., Any]] = {
    "startswith": pc.starts_with,
    "endswith": pc.ends_with,
}


class Verdict(NamedTuple):
    """What a condition says of N rows."""

    truth: np.ndarray
    """(N,) int8: 1 true, 0 false, -1 unknown."""
    wrong: dict[int, str]
    """Rows that it cannot be asked of, and why: a text stands where it needs a number."""


def words_in_condition(text: str) -> list[str]:
    """Return the names of the columns that a condition uses, and perhaps some more words."""
    parts = _PARTS.findall(text)
    return [part.strip("`") for part in parts if not part.startswith(("'", '"'))]


def evaluate_condition(text: str, table: CatalogueTable, setting: str) -> Verdict:
    """Evaluate a condition on each row; `setting` is where it stands in the recipe.

    It may use < <= > >= == !=, in [..] and not in, & | ~ (or and, or, not), + - * /, numbers,
    'words', startswith(column, 'word') and endswith. A column whose name is no plain word stands
    in backticks. Raises UserError for anything else.
    """
    shown = _shown(text)
    if len(text) > LONGEST:
        raise UserError(
            f"{setting} = {shown}: has {len(text):,} characters, and no condition more than "
            f"{LONGEST:,}; make a column of it in the catalogue"
        )

    names: dict[str, str] = {}
    try:
        tree = ast.parse(_as_python(text, names).strip(), mode="eval")
        _refuse_deep(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or "it is nested too deep"
        raise UserError(
            f"{setting} = {shown}: is not a condition: {reason}; a column whose name is no plain "
            "word stands in backticks"
        ) from error

    evaluation = _Evaluation(text, table, setting, names)
    truth = evaluation.truth(tree.body)
    if isinstance(truth, pa.Scalar):
        raise UserError(f"{setting} = {shown}: names no column")
    numbers = pc.fill_null(truth.cast(pa.int8()), -1)
    return Verdict(numbers.to_numpy(zero_copy_only=False), evaluation.wrong)


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _refuse_deep(tree: ast.AST) -> None:
    """Raise ValueError for a tree that is nested too deep to be walked by calls."""
    layer = [tree]
    for _ in range(DEEPEST):
        layer = [child for node in layer for child in ast.iter_child_nodes(node)]
    if layer:
        raise ValueError(f"it is nested more than {DEEPEST} deep")


def _as_python(text: str, names: dict[str, str]) -> str:
    """Write a condition so that Python parses it: & | ~ as and, or, not, which bind less.

    `names` is filled with a stand-in for each column whose name Python would not take for one.
    """
    parts = _PARTS.split(text)
    for first, between, second in zip(parts[1::2], parts[2::2], parts[3::2], strict=False):
        # Python would make one word of them.
        if not between.strip() and first[0] in QUOTES and second[0] in QUOTES:
            raise ValueError(f"between {first} and {second} is no comma")

    # Every second part is a quoted word, a name in backticks, or a plain name.
    for number, part in enumerate(parts):
        if number % 2 == 0:
            part = part.replace("~", " not ")
            part = re.sub(r"\|\|?", " or ", part)
            parts[number] = re.sub(r"&&?", " and ", part)
        elif part.startswith("`") or (keyword.iskeyword(part) and part not in _OPERATORS):
            stand_in = f"lens_hpc_column_{number}"
            names[stand_in] = part.strip("`")
            parts[number] = stand_in
    return "".join(parts)


class _Evaluation:
    """Evaluates a condition's syntax tree on a table, and notes the rows that are wrong."""

    def __init__(
        self, text: str, table: CatalogueTable, setting: str, names: dict[str, str]
    ) -> None:
        self.text = text
        self.table = table
        self.setting = setting
        self.names = names
        self.wrong: dict[int, str] = {}

    def truth(self, node: ast.expr) -> pa.Array:
        """Return whether an expression is true for each row, (N,) bool, null where unknown."""
        match node:
            case ast.BoolOp(op=op, values=values):
                combine = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                return reduce(combine, [self.truth(value) for value in values])

            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return pc.invert(self.truth(operand))

            case ast.Compare():
                return self._compare_all(node)

            # A test of text, as in startswith(column, 'word').
            case ast.Call(
                func=ast.Name(id=name),
                args=[column, ast.Constant(value=str(word))],
                keywords=[],
            ) if name in _TEXT_TESTS:
                return _TEXT_TESTS[name](self.table.words(self._name(column)), pattern=word)

        raise self._not_understood(node)

    def _compare_all(self, node: ast.Compare) -> pa.Array:
        """Evaluate a chain of comparisons, such as `1 < mag <= 3`."""
        results = []
        left = node.left
        for comparison, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(comparison, _MEMBERSHIPS):
                results.append(self._is_member(left, comparison, right))
            else:
                results.append(self._compare(left, comparison, right))
            left = right
        return reduce(pc.and_kleene, results)

    def _compare(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr) -> pa.Array:
        compare = _COMPARISONS.get(type(comparison))
        if compare is None:
            raise self._not_understood(left)

        # A word on either side makes it a comparison of texts.
        match left, right:
            case ast.Constant(value=str(word)), _:
                return compare(word, self._texts(right, [word]))
            case _, ast.Constant(value=str(word)):
                return compare(self._texts(left, [word]), word)
        numbers = self._number(left), self._number(right)
        if self._is_float32(left) or self._is_float32(right):
            numbers = _rounded(numbers[0]), _rounded(numbers[1])
        return compare(*_of_one_type(*numbers))

    def _is_member(self, left: ast.expr, comparison: ast.cmpop, right: ast.expr) -> pa.Array:
        """Evaluate `column in ['A', 'B']`, or of numbers, as comparisons with each."""
        match right:
            case ast.List(elts=[_, *_] as elements) | ast.Tuple(elts=[_, *_] as elements):
                values = [_literal(element) for element in elements]
            case _:
                raise self._not_understood(right)

        words = [value for value in values if isinstance(value, str)]
        if len(words) == len(values):
            texts = self._texts(left, words)
            is_equal = [pc.equal(texts, word) for word in words]
        elif words or None in values:
            raise self._not_understood(right)
        else:
            is_equal = [self._compare(left, ast.Eq(), element) for element in elements]
        is_member = reduce(pc.or_kleene, is_equal)
        return is_member if isinstance(comparison, ast.In) else pc.invert(is_member)

    def _texts(self, node: ast.expr, words: list[str]) -> pa.Array:
        """Return a column's texts; a word that the condition names is never a missing value."""
        texts = self.table.words(self._name(node), literal=words)
        return pc.fill_null(texts, "") if "" in words else texts

    def _number(self, node: ast.expr) -> Any:
        """Return the value of an expression: a number, or one in each row, (N,) with nulls."""
        match node:
            case ast.Constant(value=bool()):
                raise self._error("write 1 and 0 for true and false")

            case ast.Constant(value=int() | float() as number):
                is_small = isinstance(number, int) and abs(number) < 1 << 63
                return pa.scalar(number, pa.int64()) if is_small else pa.scalar(float(str(number)))

            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return pc.negate(self._number(operand))

            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                sides = [
                    self._number(side).cast(pa.float64(), safe=False) for side in (left, right)
                ]
                result = _ARITHMETIC[type(op)](*sides)
                return pc.if_else(pc.is_nan(result), pa.scalar(None, pa.float64()), result)

            case ast.Name():
                name = self._name(node)
                numbers, wrong = self.table.numbers(name)
                self._note_wrong(name, wrong)
                return numbers

        raise self._not_understood(node)

    def _is_float32(self, node: ast.expr) -> bool:
        if not isinstance(node, ast.Name):
            return False
        return bool(pa.types.is_float32(self.table.columns[self._name(node)].type))

    def _note_wrong(self, name: str, rows: np.ndarray) -> None:
        for row in rows.tolist():
            text = self.table.text(name, row)
            self.wrong[row] = f"{name} = {text!r} is not a number, as {self.setting} needs"

    def _name(self, node: ast.expr) -> str:
        """Return the name of the column that a node stands for."""
        if not isinstance(node, ast.Name):
            raise self._not_understood(node)
        name = self.names.get(node.id, node.id)
        if name not in self.table:
            columns = self.table.names_shown()
            raise self._error(f"no column {name!r}; there are {columns}")
        return name

    def _not_understood(self, node: ast.expr) -> UserError:
        text = ast.unparse(node)
        for stand_in, name in self.names.items():
            text = text.replace(stand_in, f"`{name}`")
        return self._error(f"{_shown(text)!r} cannot be understood in a condition")

    def _error(self, reason: str) -> UserError:
        return UserError(f"{self.setting} = {_shown(self.text)}: {reason}")


def _literal(node: ast.expr) -> str | float | None:
    """Return a word or a number that is written out; None for anything else."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    return None


def _rounded(number: Any) -> Any:
    """Return a number that is written out as float32 has it; a column stays as it is."""
    if not isinstance(number, pa.Scalar):
        return number
    return number.cast(pa.float64(), safe=False).cast(pa.float32()).cast(pa.float64())


def _of_one_type(left: Any, right: Any) -> tuple[Any, Any]:
    """Return two sides as whole numbers if both are, which compares them exactly."""
    if left.type == right.type:
        return left, right
    return left.cast(pa.float64(), safe=False), right.cast(pa.float64(), safe=False)
