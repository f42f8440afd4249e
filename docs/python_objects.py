"""The objects of `import lens_hpc` as Markdown, from their source and docstrings, by griffe."""

import re
from collections.abc import Iterator

import griffe
from markdown_text import block, prose

CODE = "py"
"""Language of what is shown and not run."""


def result(found: griffe.Class) -> str:
    """Return the name of a result's class, what it is, and the names that it has."""
    members = [
        f"`{name}`"
        for name, member in found.members.items()
        if not name.startswith("_") and (member.is_attribute or member.is_function)
    ]
    purpose = found.docstring.value.partition("\n\n")[0] if found.docstring else ""
    return f"`{found.name}`: {prose(purpose)} Has {', '.join(members)}."


def described(found: griffe.Class) -> Iterator[str]:
    """Yield the parts of an object's section."""
    bases = ", ".join(str(base) for base in found.bases)
    yield f"## {found.name}"
    yield block(f"class {found.name}({bases})".replace("()", ""), CODE)
    yield _text(found)

    for name, member in found.members.items():
        if name.startswith("_") and name != "__getitem__":
            continue
        if member.is_function and member.docstring:
            yield f"### {found.name}.{name}" if name != "__getitem__" else f"### {found.name}[...]"
            yield block(_signature(member), CODE)
            yield _text(member)
        elif member.docstring:
            yield f"**`.{name}`** {_text(member)}"


def _signature(function: griffe.Object) -> str:
    """Return a function's source up to its docstring, which the formatter has made readable."""
    return function.source.partition('"""')[0].rstrip().removesuffix(":")


def _text(found: griffe.Object | griffe.Alias) -> str:
    """Return a docstring, its examples in blocks."""
    text = found.docstring.value if found.docstring else ""
    examples = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
    return examples.sub(lambda example: block(example[0], "pycon"), text)
