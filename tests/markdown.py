"""The code blocks of Markdown pages, for the tests that do what the pages say.

A block that cannot be run everywhere has a line directly above its fence, with the reason:

    <!-- not run: needs a cluster -->
"""

import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)\s*")
NOT_RUN = re.compile(r"\s*<!-- not run: (?P<reason>.+?) -->\s*")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    """What stands behind the fence: sh, python, yaml, ...; empty where nothing does."""
    content: str
    reason: str
    """Why no test runs it; empty for a block that is run."""
    line: int
    """Line of its fence, from 1."""


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    blocks = []
    start = None
    for number, line in enumerate(lines):
        fence = FENCE.fullmatch(line)
        if not fence:
            continue
        if start is None:
            start, opened = number, fence
        elif not fence["language"]:
            content = _dedented(lines[start + 1 : number], opened["indent"])
            reason = _reason_above(lines, start)
            blocks.append(Block(opened["language"], content, reason, start + 1))
            start = None
    assert start is None, f"{page}:{start + 1}: a block without an end"
    return blocks


def exempt_lines(page: Path) -> list[str]:
    """Return a text for each block of a page that could be run and is not: where, why and what."""
    texts = []
    for block in blocks_of(page):
        if block.reason:
            where = f"{page.name}:{block.line}: not run: {block.reason}"
            texts.append(f"{where}\n{block.content}")
    return texts


def _reason_above(lines: list[str], fence: int) -> str:
    """Return the reason that stands directly above a fence; empty where there is none."""
    mark = NOT_RUN.fullmatch(lines[fence - 1]) if fence > 0 else None
    return mark["reason"] if mark else ""


def _dedented(lines: list[str], indent: str) -> str:
    """Return the lines of a block in a list without the list's indent."""
    return "".join(line.removeprefix(indent) for line in lines)
