"""What is wrong with a text that is not valid YAML, in words that say what to do.

The library names the rule that was broken, and the place where it noticed. People make few kinds of
mistakes, and the line at fault is often the one above.
"""

import re
from typing import NamedTuple

import yaml

LONGEST_LINE = 80
BLANK_MISSING = re.compile(r"^[\s-]*[\w.]+:[^\s:].*$")
"""A line such as `run:runs/first`."""
ASSIGNMENT = re.compile(r"^\s*([\w.]+)\s*=\s*(.+)$")
OF_TEXTS = "%@`*&!"
"""Characters that mean something to YAML where a text begins."""


class Mistake(NamedTuple):
    """One mistake in a text."""

    line: int
    """Its number, from 1."""
    reason: str
    """What is wrong with the line, and what to do."""


class _Place(NamedTuple):
    """Where the library noticed a mistake."""

    lines: list[str]
    line: int
    """From 0."""
    column: int
    """From 0."""

    @property
    def text(self) -> str:
        return self.lines[self.line] if self.line < len(self.lines) else ""

    def above(self) -> int:
        """Return the number of the next line above that holds something, or -1."""
        number = min(self.line, len(self.lines)) - 1
        while number >= 0 and not self.lines[number].partition("#")[0].strip():
            number -= 1
        return number


def find_mistake(text: str, error: yaml.YAMLError) -> Mistake:
    """Explain an error of the library by the text that it is about."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        character = f"U+{ord(text[error.position]):04X}"
        return Mistake(before.count("\n") + 1, f"it holds the character {character}; remove it")

    assert isinstance(error, yaml.MarkedYAMLError)
    lines = text.removeprefix("\ufeff").splitlines()
    noticed = _place(lines, error.problem_mark or error.context_mark)
    began = _place(lines, error.context_mark or error.problem_mark)
    return _explain(error.problem or "", error.context or "", noticed, began)


def shown_line(text: str, mistake: Mistake) -> str:
    """Return the line at fault, as a message shows it."""
    lines = text.removeprefix("\ufeff").splitlines()
    line = lines[mistake.line - 1].expandtabs(4) if mistake.line <= len(lines) else ""
    return line.rstrip()[:LONGEST_LINE]


def _place(lines: list[str], mark: yaml.Mark | None) -> _Place:
    return _Place(lines, mark.line, mark.column) if mark else _Place(lines, 0, 0)


def _explain(problem: str, context: str, noticed: _Place, began: _Place) -> Mistake:
    """Tell one kind of mistake from the others."""
    if r"'\t' that cannot start" in problem:
        return Mistake(noticed.line + 1, "it holds a tab; write blanks")
    if "that cannot start any token" in problem or "undefined alias" in problem:
        return Mistake(noticed.line + 1, _quotes_needed(noticed))
    if context in {"while scanning an alias", "while scanning an anchor"}:
        return Mistake(began.line + 1, _quotes_needed(began))

    if "mapping values are not allowed" in problem:
        return _unexpected_colon(noticed)
    if "could not find expected ':'" in problem:
        return _no_key_and_value(began, began.line)
    if problem.startswith("expected <block end>"):
        return _unexpected_in_block(problem, noticed)
    if problem.startswith(("expected ',' or '}'", "expected ',' or ']'")):
        opening = "{" if "'}'" in problem else "["
        return Mistake(began.line + 1, f"its {opening} is not closed, or a comma is missing")

    if context == "while scanning a quoted scalar":
        return Mistake(began.line + 1, "it opens a quote that is not closed")
    if "unknown escape character" in problem:
        return Mistake(
            noticed.line + 1, "in double quotes, a backslash is written twice; take single quotes"
        )
    if "found another document" in problem:
        return Mistake(noticed.line + 1, "it begins a second document (---); keep one of them")
    if problem.startswith("expected '<document start>'"):
        return _text_behind_a_value(noticed)
    if "unhashable key" in problem:
        return Mistake(noticed.line + 1, "a text that begins with a brace needs quotes")
    return Mistake(noticed.line + 1, problem)


def _quotes_needed(place: _Place) -> str:
    first = place.text[place.column : place.column + 1]
    return f"a text that begins with {first} needs quotes: {_quoted_from(place, place.column)}"


def _quoted_from(place: _Place, column: int) -> str:
    """Return a line in which all from a column on is within quotes, but for a comment."""
    text = re.sub(r"\s+#.*$", "", place.text).rstrip()
    value = text[column:]
    quote = "'" if '"' in value else '"'
    return f"{text[:column].lstrip()}{quote}{value}{quote}"


def _start_of_value(text: str) -> int:
    """Return the column in which the value of `key: value` begins; 0 where there is no key."""
    found = re.match(r"^[\s-]*[\w.]+:\s+", text)
    return found.end() if found else 0


def _unexpected_colon(place: _Place) -> Mistake:
    if BLANK_MISSING.match(place.text):
        return _no_key_and_value(place, place.line)
    start = _start_of_value(place.text)
    if 0 < start <= place.column:
        fixed = _quoted_from(place, start)
        return Mistake(place.line + 1, f"a text with a colon and a blank needs quotes: {fixed}")

    above = place.above()
    if above < 0:
        return Mistake(place.line + 1, "it has a colon where none can be")
    if _start_of_value(place.lines[above]):
        return Mistake(
            place.line + 1,
            "it is indented deeper than the line above, which has a value already; "
            "settings of one group begin in one column",
        )
    return _no_key_and_value(place, above)


def _no_key_and_value(place: _Place, number: int) -> Mistake:
    """Explain a line that should be `key: value`."""
    text = place.lines[number]
    assignment = ASSIGNMENT.match(text)
    if assignment:
        key, value = assignment.groups()
        return Mistake(number + 1, f"in a file, settings have a colon: {key}: {value.strip()}")
    if BLANK_MISSING.match(text):
        fixed = text.strip().replace(":", ": ", 1)
        return Mistake(number + 1, f"behind the colon must be a blank: {fixed}")
    return Mistake(number + 1, "it is no `key: value`")


def _unexpected_in_block(problem: str, place: _Place) -> Mistake:
    found = problem.rpartition("found ")[2]
    if found == "'<block mapping start>'":
        reason = "it is indented as no line above; settings of one group begin in one column"
        return Mistake(place.line + 1, reason)
    if found in {"'-'", "'<block sequence start>'"}:
        return Mistake(place.line + 1, "it is an item of a list; leave out the dash")
    if found == "'<scalar>'":
        return _text_behind_a_value(place)
    return Mistake(place.line + 1, f"it has {found} where none can be")


def _text_behind_a_value(place: _Place) -> Mistake:
    """Explain a line such as `images: {id}.npy`: a value, and then more."""
    start = _start_of_value(place.text)
    if place.column <= start:
        return Mistake(place.line + 1, "it is no `key: value`")
    first = place.text[start]
    if first in "'\"":
        reason = "behind the closing quote stands more; put all of it into other quotes"
        return Mistake(place.line + 1, reason)
    kind = "brace" if first == "{" else "bracket" if first == "[" else first
    fixed = _quoted_from(place, start)
    return Mistake(place.line + 1, f"a text that begins with a {kind} needs quotes: {fixed}")
