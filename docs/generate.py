"""Write the generated parts of docs/reference from the code: `python docs/generate.py`.

A page of the reference is written by hand down to the mark below. What follows comes from the
texts that `--help`, the settings and the docstrings are made of, so that it says the same on GitHub
and on the site. Nothing is run: neither torch nor data are needed. tests/test_site.py says when a
page is stale.
"""

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import griffe
from markdown_text import block, prose, table
from pydantic import BaseModel
from python_objects import described as described_object
from python_objects import result
from setting_words import field_of, groups_of, item

from lens_hpc import help, layout, verbs
from lens_hpc.describing import Description, describe
from lens_hpc.settings import Settings

DOCS = Path(__file__).parent
MARK = "<!-- All below is written by docs/generate.py, from the code. -->"

OBJECTS = (
    "dataset.dataset.Dataset",
    "dataset.split.Split",
    "dataset.sample.Sample",
    "dataset.sample.SampleBatch",
    "scoring.finder.Finder",
    "errors.UserError",
)
"""What `lens_hpc` has besides its verbs, and what these return."""

FOLDERS = {
    "DATASET": "A dataset",
    "RUN": "A run",
    "PREDICTION": "A prediction",
    "GRADING": "A grading",
    "VETTED": "A vetted list",
}
"""Titles of the folders that layout.py lists; what it lists besides has its own name."""

NO_SETTINGS = "It has no settings."


# ---- commands ----


def commands() -> Iterator[str]:
    """Yield what each verb does, an example, and the settings that people change first."""
    for name in help.verbs_in_order():
        header = verbs.header(name)
        kind = verbs.module(name).Settings
        yield f"## {name}"
        yield prose(header.summary)
        yield block(f"lens-hpc {name} {header.target} key=value ...", "text")
        yield block(_shell_lines(header.example), "text")
        yield from _file_example(header.target, kind)
        yield from _first_settings(name, kind)


def _shell_lines(command: str) -> str:
    lines = textwrap.wrap(
        command, 76, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    return " \\\n".join(lines)


def _file_example(target: str, kind: type[Settings]) -> Iterator[str]:
    """Yield an example of the YAML file that a verb takes, if it takes one."""
    recipe = kind.kind_of_recipe
    example = (recipe or kind).example
    if example:
        file = "The file of `recipe=`" if recipe else target
        yield f"{file} is YAML, such as:"
        yield block(example.strip(), "yaml")


def _first_settings(name: str, kind: type[Settings]) -> Iterator[str]:
    described = help.settings_of(name)
    by_key = {setting.key: setting for setting in described}
    first = [by_key[key] for key in kind.shown_first if key in by_key]
    shown = [item(kind, setting) for setting in first or described]
    yield "\n".join(shown) if shown else NO_SETTINGS
    if first:
        yield f"[All {len(described)} settings of {name}](settings.md#{name})"


# ---- settings ----


def settings() -> Iterator[str]:
    """Yield all settings of each verb, and of the recipes that verbs take, by group."""
    of_training = {setting.key for setting in help.settings_of("train")}
    takers: dict[type[Settings], list[str]] = {}
    for name in help.verbs_in_order():
        kind = verbs.module(name).Settings
        described = help.settings_of(name)
        yield f"## {name}"
        if name != "train" and issubclass(kind, verbs.module("train").Settings):
            yield "All settings of [train](#train)."
            described = [setting for setting in described if setting.key not in of_training]
        elif not described:
            yield NO_SETTINGS
        yield from _by_group(kind, described)
        if kind.kind_of_recipe:
            takers.setdefault(kind.kind_of_recipe, []).append(name)

    # Verbs that take the same recipe share its section.
    for recipe, names in takers.items():
        yield f"## The recipe of {' and '.join(names)}"
        yield f"The YAML file that `recipe=` names. {prose(_first_paragraph(recipe))}"
        yield from _by_group(recipe, describe(recipe))


def _by_group(kind: type[BaseModel], described: list[Description]) -> Iterator[str]:
    groups: dict[str, list[Description]] = {}
    for setting in described:
        group = setting.key.rpartition(".")[0]
        groups.setdefault(group, []).append(setting)

    for group, members in groups.items():
        if group:
            kinds = groups_of(kind, field_of(kind, group))
            purpose = _first_paragraph(kinds[0]) if kinds else ""
            yield f"**`{group}`**: {prose(purpose)}"
        yield "\n".join(item(kind, setting) for setting in members)


def _first_paragraph(kind: type[BaseModel]) -> str:
    return (kind.__doc__ or "").partition("\n\n")[0]


# ---- files ----


def files() -> Iterator[str]:
    """Yield what each file of a dataset, a run, ... is, as layout.py lists them."""
    listed = re.compile(r"^([A-Z]+)/.*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
    for found in listed.finditer(layout.__doc__ or ""):
        folder = found[1]
        yield f"## {FOLDERS.get(folder, folder.capitalize())}"
        yield table(("file", "what it holds"), _file_rows(found[0]))


def _file_rows(text: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for line in text.splitlines():
        names, _, meaning = line.partition("  ")
        if names:
            shown = re.sub(r"[^\s,]*[/.][^\s,]*", r"`\g<0>`", names)
            rows.append((shown, prose(meaning)))
        else:
            # It goes on with the meaning of the line before.
            names, before = rows[-1]
            rows[-1] = (names, f"{before} {prose(meaning)}")
    return rows


# ---- Python ----


def python() -> Iterator[str]:
    """Yield the functions and objects of `import lens_hpc`."""
    package = griffe.load("lens_hpc", search_paths=[DOCS.parent], resolve_aliases=False)
    yield "## Verbs"
    yield "\n".join(_function(name, package) for name in help.verbs_in_order())
    for path in OBJECTS:
        yield from described_object(package[path])


def _function(name: str, package: griffe.Module) -> str:
    """Return the item of a list: how a verb is called, and what it returns."""
    target = verbs.header(name).target.lower()
    arguments = ", ".join(target.replace("[", "").replace("]", "").split())
    returned = package[f"verbs.{name}.run"].returns
    names = [part for part in returned.iterate() if isinstance(part, griffe.ExprName)]
    found = package[names[0].canonical_path.removeprefix("lens_hpc.")]
    return f"- **`lens_hpc.{name}({arguments}, **settings)`**<br>\n  {result(found)}"


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "settings": settings,
    "files": files,
    "python": python,
}


def pages() -> dict[Path, str]:
    """Return the text that each page should have."""
    texts = {}
    for name, parts in PAGES.items():
        file = DOCS / "reference" / f"{name}.md"
        written_by_hand = file.read_text(encoding="utf-8").partition(MARK)[0]
        generated = "\n\n".join(part for part in parts() if part)
        texts[file] = f"{written_by_hand}{MARK}\n\n{generated}\n"
    return texts


if __name__ == "__main__":
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")
