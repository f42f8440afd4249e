"""Pieces of Markdown for the generated pages."""

import re


def prose(text: str) -> str:
    """Return a text on one line in which nothing is taken for Markdown, but for `code`."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    for number, part in enumerate(parts):
        if not part.startswith("`"):
            parts[number] = re.sub(r"([*_|])", r"\\\1", part).replace("<", "&lt;")
    return "".join(parts)


def block(text: str, language: str) -> str:
    """Return a fenced block. Tests run those of `sh` and `python`, so these are for none."""
    return f"```{language}\n{text}\n```"


def table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """Return a table of two columns."""
    lines = [head, ("---", "---"), *rows]
    return "\n".join(f"| {first} | {second} |" for first, second in lines)
