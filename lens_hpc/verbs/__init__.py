"""The verbs of `lens-hpc VERB ...`: one file each, found by its name, and nothing else to register.

A verb's file begins with a docstring, `VERB: what it is for`, and has, below that, plain texts that
--help reads without importing anything:

    TARGET          what follows the verb on the command line, as --help shows it
    TARGET_SETTING  the setting that takes the target; without it, the target is a YAML file of
                    settings
    SUMMARY         what the verb does, in a sentence or two
    EXAMPLE         a command line that works
    EXTRA           the extra of the package that brings what the verb imports; without it, reading
                    datasets takes all
    PROCESSES       what `processes=N` does on the command line, where several processes can do the
                    verb's work together; without it, no launcher starts them

and then

    class Settings           every setting, with a docstring each
    run(settings) -> result  the work, which lies in the rooms below; None on ranks that only help
    text(result) -> str      what the terminal prints
    status(result) -> int    exit status, where it is not always 0

The terminal (`lens_hpc.cli`) and the Python door (`lens_hpc.VERB`) call the same `run`. What takes
long to import (torch, pandas) is imported within `run`, after the settings were read.
"""

import ast
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from lens_hpc.errors import UserError

FOLDER = Path(__file__).parent


class Header(NamedTuple):
    """What --help says of a verb."""

    target: str
    target_setting: str
    summary: str
    example: str
    processes: str
    extra: str
    """The extra that brings what it imports; empty if that is what reads datasets."""
    brief: str
    """The first line of its file: what the verb is for, in a few words."""


def names() -> list[str]:
    """Names of all verbs."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")


def header(name: str) -> Header:
    """Read the texts at the top of a verb's file, without importing it."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree) or ""
    brief = docstring.partition("\n\n")[0].removeprefix(f"{name}: ").rstrip(".")
    texts = {"TARGET_SETTING": "", "PROCESSES": "", "EXTRA": "", "BRIEF": " ".join(brief.split())}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=key)], value=ast.Constant(value=str(text))):
                texts[key] = text
    return Header(*(texts[field.upper()] for field in Header._fields))


def module(name: str) -> ModuleType:
    """Import a verb."""
    return importlib.import_module(f"{__name__}.{name}")


def read_settings(
    name: str,
    targets: Sequence[Path],
    overrides: Sequence[str] = (),
    values: dict[str, Any] | None = None,
    source: str = "the command line",
) -> Any:
    """Read the settings of a verb for some targets: a YAML file, or the value of one setting."""
    from lens_hpc import settings  # pydantic: not before a verb is called

    kind, told = module(name).Settings, header(name)
    values = dict(values or {})
    takes_several = "..." in told.target
    if len(targets) > 1 and not takes_several:
        given = " ".join(map(str, targets))
        raise UserError(
            f"takes one {told.target}, not {len(targets)}: {given}; a setting is key=value"
        )

    if told.target_setting:
        _check_given_once(told, overrides, values)
        values[told.target_setting] = list(targets) if takes_several else targets[0]
        return settings.load(kind, None, overrides, values, source)
    return settings.load(kind, targets[0] if targets else None, overrides, values, source)


def _check_given_once(told: Header, overrides: Sequence[str], values: dict[str, Any]) -> None:
    setting = told.target_setting
    if setting in values or any(word.partition("=")[0] == setting for word in overrides):
        raise UserError(f"{setting}: is the {told.target} itself, which is given already")
