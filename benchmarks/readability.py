"""How dense is Python code to read?

    python benchmarks/readability.py [folder=lens_hpc] [worst=10]

This prints three groups of figures, each beside its limit, and then a table of the `worst`
densest modules (0: all of them). The exit status is 1 when a limit is broken.

Every line of a file is of one kind:

    docstring   It belongs to the docstring of a module, class, function or attribute.
    comment     It holds nothing but a comment.
    blank       It holds nothing, and is not part of a string.
    code        It is any other line, also one that holds code beside a comment or docstring.

The nodes are the statements and expressions of the syntax tree, without the docstrings. A
function is the outermost one: what is nested in it belongs to it, and methods are functions.
It reaches from its `def` line, without decorators, to its last line.
"""

import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_NODES_PER_LINE = 5.5
"""This is the most nodes that a line of code may hold, over the whole folder."""

MIN_AIR = 0.08
"""This is the least share of blank and comment lines in long functions."""

MIN_COMMENTS = 0.02
"""This is the least share of comment lines in long functions."""

MAX_WIDTH = 100
"""This is the most columns of a line."""

MAX_MODULE = 300
"""This is the most lines of code of a module."""

MAX_FUNCTION = 50
"""This is the most lines of a function, without its docstrings."""

LONG_FUNCTION = 16
"""A function of so many lines, docstrings included, needs blank lines and comments."""

VERB_NAMES = {"Settings", "run", "text", "status"}
"""Every module in `verbs/` may define these names: they are the contract of a verb."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
DefinitionNode = FunctionNode | ast.ClassDef

LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
"""Tokens of these types do not make a line one of code."""


@dataclass(frozen=True)
class Function:
    """An outermost function: its name, where it starts, and how many lines it has of each kind."""

    name: str
    start: int
    lines: Counter[str]

    @property
    def is_long(self) -> bool:
        """Say whether the function is long enough to need blank lines and comments."""
        return self.lines.total() >= LONG_FUNCTION

    @property
    def length(self) -> int:
        """Count the lines that are not docstring."""
        return self.lines.total() - self.lines["docstring"]


@dataclass(frozen=True)
class Module:
    """What was counted in one file."""

    name: str
    nodes: int
    lines: Counter[str]
    wide_lines: int
    functions: tuple[Function, ...]
    public_names: frozenset[str]


@dataclass(frozen=True)
class Readability:
    """The figures of one or more modules taken together."""

    modules: tuple[Module, ...]

    @property
    def code_lines(self) -> int:
        """Count the lines of code."""
        return sum(module.lines["code"] for module in self.modules)

    @property
    def nodes_per_line(self) -> float:
        """Divide the nodes by the lines of code; without code this is 0."""
        nodes = sum(module.nodes for module in self.modules)
        return nodes / max(self.code_lines, 1)

    @property
    def air(self) -> float | None:
        """Give the share of blank and comment lines in long functions, if there are any."""
        return self._share_in_long_functions("blank", "comment")

    @property
    def comments(self) -> float | None:
        """Give the share of comment lines in long functions, if there are any."""
        return self._share_in_long_functions("comment")

    @property
    def wide_lines(self) -> int:
        """Count the lines that are too wide."""
        return sum(module.wide_lines for module in self.modules)

    @property
    def large_modules(self) -> list[str]:
        """Name the modules that have too many lines of code."""
        return [
            f"{module.name} ({module.lines['code']} lines)"
            for module in self.modules
            if module.lines["code"] > MAX_MODULE
        ]

    @property
    def large_functions(self) -> list[str]:
        """Name the functions that have too many lines."""
        return [
            f"{module.name}:{function.start} {function.name} ({function.length} lines)"
            for module in self.modules
            for function in module.functions
            if function.length > MAX_FUNCTION
        ]

    @property
    def repeated_names(self) -> list[str]:
        """Name what more than one module defines, each with these modules."""
        places = defaultdict(list)

        for module in self.modules:
            for name in module.public_names:
                places[name].append(module.name)

        return [
            f"{name}: {', '.join(modules)}"
            for name, modules in sorted(places.items())
            if len(modules) > 1
        ]

    def broken_limits(self) -> list[str]:
        """Name the figures that break their limit."""
        return [figure.name for figure in figures(self) if not figure.holds]

    def _share_in_long_functions(self, *kinds: str) -> float | None:
        """Divide the lines of these kinds by all that are not docstring."""
        functions = [
            function for module in self.modules for function in module.functions if function.is_long
        ]
        if not functions:
            return None

        # The lines are added up before they are divided, so that a function counts by its length.
        lines = sum(function.length for function in functions)
        wanted = sum(function.lines[kind] for function in functions for kind in kinds)

        return wanted / lines


@dataclass(frozen=True)
class Figure:
    """A line of the report: a name, a value, the limit, and what breaks the limit."""

    name: str
    value: str
    limit: str
    holds: bool
    offenders: tuple[str, ...] = ()


def measure(folder: Path) -> Readability:
    """Measure all modules below a folder, or the one that is given in its place."""
    if folder.is_file():
        return Readability((measure_module(folder, folder.name),))

    # A folder that is misspelt must not look like one without faults.
    paths = sorted(folder.rglob("*.py"))
    if not paths:
        raise FileNotFoundError(f"There is no Python file in {folder}")

    modules = [measure_module(path, path.relative_to(folder).as_posix()) for path in paths]
    return Readability(tuple(modules))


def measure_module(path: Path, name: str) -> Module:
    """Read one file and count what is in it."""
    with tokenize.open(path) as file:
        source = file.read()

    # Lines and nodes both leave out the docstrings, so these are looked up first.
    tree = ast.parse(source)
    docstrings = docstrings_in(tree)
    kinds = line_kinds(source, docstrings)

    # A verb's contract is the same in all verbs, and must be.
    public_names = set(public_names_in(tree))
    if path.resolve().parent.name == "verbs":
        public_names -= VERB_NAMES

    return Module(
        name=name,
        nodes=count_nodes(tree) - 2 * len(docstrings),
        lines=Counter(kinds),
        wide_lines=sum(len(line) > MAX_WIDTH for line in source.split("\n")),
        functions=tuple(functions_in(tree, kinds)),
        public_names=frozenset(public_names),
    )


def docstrings_in(tree: ast.Module) -> list[ast.stmt]:
    """List the statements that are docstrings; each is two nodes, itself and its constant."""
    found: list[ast.stmt] = []

    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            # Any string here is a docstring: that of an attribute follows the attribute.
            candidates = node.body
        elif isinstance(node, FunctionNode):
            candidates = node.body[:1]
        else:
            continue

        found += [statement for statement in candidates if is_string(statement)]

    return found


def is_string(statement: ast.stmt) -> bool:
    """Say whether a statement is a string and nothing else."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def line_kinds(source: str, docstrings: Iterable[ast.stmt]) -> list[str]:
    """Give the kind of every line; the later of the steps below overrule the earlier."""
    readline = io.StringIO(source).readline
    tokens = list(tokenize.generate_tokens(readline))

    # A line that no token touches is blank, or has a lone backslash.
    kinds = ["code" if line.strip() else "blank" for line in io.StringIO(source)]

    for token in tokens:
        if token.type == tokenize.COMMENT:
            kinds[token.start[0] - 1] = "comment"

    for docstring in docstrings:
        for number in lines_of(docstring):
            kinds[number - 1] = "docstring"

    for token in tokens:
        # A string in a docstring's line is the docstring itself.
        in_docstring = kinds[token.start[0] - 1 : token.start[0]] == ["docstring"]
        if token.type in LAYOUT or (in_docstring and token.type == tokenize.STRING):
            continue

        # A string may go on over many lines, and blank ones in it are code too.
        for number in range(token.start[0], token.end[0] + 1):
            kinds[number - 1] = "code"

    return kinds


def lines_of(node: ast.stmt) -> range:
    """Number the lines of a statement, from 1 on as Python does."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def count_nodes(tree: ast.Module) -> int:
    """Count the statements and expressions."""
    return sum(isinstance(node, ast.stmt | ast.expr) for node in ast.walk(tree))


def definitions_in(node: ast.AST) -> Iterator[DefinitionNode]:
    """Find the functions and classes in a body, also below an `if`, but not in one another."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DefinitionNode):
            yield child
        else:
            yield from definitions_in(child)


def functions_in(node: ast.AST, kinds: list[str], prefix: str = "") -> Iterator[Function]:
    """Find the functions and methods that are in no other function."""
    for definition in definitions_in(node):
        name = prefix + definition.name

        if isinstance(definition, ast.ClassDef):
            yield from functions_in(definition, kinds, f"{name}.")
        else:
            lines = Counter(kinds[number - 1] for number in lines_of(definition))
            yield Function(name, definition.lineno, lines)


def public_names_in(tree: ast.Module) -> Iterator[str]:
    """Find the names of top-level functions and classes that do not start with an underscore."""
    for definition in definitions_in(tree):
        if not definition.name.startswith("_"):
            yield definition.name


def figures(found: Readability) -> list[Figure]:
    """Set the figures beside their limits."""
    density = found.nodes_per_line

    return [
        Figure(
            "nodes per line of code",
            f"{density:.2f}",
            f"at most {MAX_NODES_PER_LINE}",
            density <= MAX_NODES_PER_LINE,
        ),
        share("blank and comment lines in long functions", found.air, MIN_AIR),
        share("comment lines in long functions", found.comments, MIN_COMMENTS),
        none_of(f"lines longer than {MAX_WIDTH} columns", found.wide_lines),
        none_of(f"modules of more than {MAX_MODULE} lines of code", found.large_modules),
        none_of(f"functions of more than {MAX_FUNCTION} lines", found.large_functions),
        none_of("public names that several modules define", found.repeated_names),
    ]


def share(name: str, value: float | None, least: float) -> Figure:
    """Ask for at least so large a share, unless there is nothing to share."""
    holds = value is None or value >= least
    return Figure(name, percent(value), f"at least {least:.0%}", holds)


def none_of(name: str, offenders: int | list[str]) -> Figure:
    """Ask for none of something, which is counted or listed."""
    if isinstance(offenders, int):
        return Figure(name, str(offenders), "0", offenders == 0)

    return Figure(name, str(len(offenders)), "0", not offenders, tuple(offenders))


def percent(value: float | None) -> str:
    """Write a share, or a dash in its place."""
    return "-" if value is None else f"{value:.1%}"


def report(found: Readability, worst: int) -> Iterator[str]:
    """Write the figures of the folder, what breaks their limits, and the table of modules."""
    yield f"{len(found.modules)} modules, {found.code_lines} lines of code"
    yield ""

    for figure in figures(found):
        verdict = "ok" if figure.holds else "FAILS"
        yield f"{figure.name:<44} {figure.value:>6}   {figure.limit:<13} {verdict}"

        for offender in figure.offenders:
            yield f"    {offender}"

    yield ""
    yield from table(found.modules, worst)


def table(modules: Iterable[Module], worst: int) -> Iterator[str]:
    """Write a row for each of the densest modules."""
    rows = [(module.name, Readability((module,))) for module in modules]
    rows.sort(key=lambda row: row[1].nodes_per_line, reverse=True)

    # A slice that ends at None takes every row.
    shown = rows[: worst or None]
    width = max(len(name) for name, _ in shown)

    yield f"{'module':<{width}}  nodes/line  blank+comment  comment   code"
    for name, row in shown:
        yield (
            f"{name:<{width}}  {row.nodes_per_line:>10.2f}  {percent(row.air):>13}"
            f"  {percent(row.comments):>7}  {row.code_lines:>5}"
        )


def main(arguments: list[str]) -> int:
    """Measure, print, and return the exit status."""
    options = {"folder": "lens_hpc", "worst": "10"}

    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in options or not equals:
            print("usage: python benchmarks/readability.py [folder=lens_hpc] [worst=10]")
            return 2
        options[key] = value

    try:
        found = measure(Path(options["folder"]))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2

    print("\n".join(report(found, int(options["worst"]))))

    return 1 if found.broken_limits() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
