"""The texts of `lens-hpc --help` and `lens-hpc VERB --help`, for a terminal of 80 columns."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lens_hpc import verbs

if TYPE_CHECKING:
    from lens_hpc.describing import Description

WIDTH = 80
NAME_WIDTH = 15

# Verbs in the order in which a user first needs them. All others follow.
FIRST_DAY = (
    "simulate",
    "pack",
    "verify",
    "info",
    "audit",
    "inject",
    "train",
    "weights",
    "check",
    "bench",
    "evaluate",
    "predict",
    "grade",
    "combine",
    "completeness",
)
DEMO = ("simulate", "pack", "audit", "train", "evaluate")
"""Verbs whose examples follow each other on the mock survey."""

OTHER_WORDS = {
    "help": "this text; help VERB is VERB --help",
    "config": "config VERB > my.yaml writes a file of settings, with what each means",
    "completion": "completion bash|zsh: completes verbs and settings in your shell",
    "version": "which one this is",
}
EXIT_STATUS = (
    "Exit status: 0 done; 1 our fault; 2 your input is at fault, and the message says where; "
    "3 audit found a leak; 85 train was asked to stop, has saved, and goes on when the same line "
    "is run again."
)


def verbs_in_order() -> list[str]:
    """Return the names of all verbs, those that are used first at the beginning."""
    found = verbs.names()
    first = [name for name in FIRST_DAY if name in found]
    return first + [name for name in found if name not in FIRST_DAY]


# ---- all verbs ----


def overview() -> str:
    """Return the text of `lens-hpc --help`."""
    lines = ["lens-hpc VERB FILE-OR-FOLDER key=value ...", ""]
    lines += _paragraph(
        "Train and evaluate strong-lens finders, and score surveys, from a laptop to a cluster."
    )
    lines.append("")
    for name in verbs_in_order():
        lines += _entry(name, verbs.header(name).brief)
    lines.append("")
    for word, meaning in OTHER_WORDS.items():
        lines += _entry(word, meaning)

    lines += ["", "The whole way on a mock survey:"]
    for name in DEMO:
        lines += _command(verbs.header(name).example)
    lines += ["", "lens-hpc VERB --help tells more of a verb, and lists its settings."]
    return "\n".join([*lines, *_paragraph(EXIT_STATUS)])


# ---- one verb ----


def verb_help(name: str, shows_all: bool = False) -> str:
    """Return the text of `lens-hpc VERB --help`.

    It has the settings that people change first, each with its default and meaning; or all of
    them, by group.
    """
    header = verbs.header(name)
    kind = verbs.module(name).Settings
    lines = [f"lens-hpc {name} {header.target} key=value ...", ""]
    lines += _paragraph(header.summary)
    lines += ["", "Example:", *_command(header.example), ""]
    lines += _file_example(name, kind)

    described = settings_of(name)
    by_key = {setting.key: setting for setting in described}
    first = [by_key[key] for key in kind.shown_first if key in by_key]
    if shows_all or not first:
        lines.append("Settings, their defaults and meaning:")
        lines += _by_group(kind, described)
    else:
        lines.append("Settings that are changed first, their defaults and meaning:")
        lines += _listed(first)
        lines += ["", f"All {len(described)} settings: lens-hpc {name} --help all"]
    return "\n".join(lines)


def settings_of(name: str) -> "list[Description]":
    """Return what stands as key=value after a verb, on the command line."""
    from lens_hpc.describing import Description, describe  # pydantic: not for `lens-hpc --help`

    header = verbs.header(name)
    described = describe(verbs.module(name).Settings)
    described = [setting for setting in described if setting.key != header.target_setting]
    if header.processes:
        described.append(Description("processes", "1", header.processes))
    return described


def _file_example(name: str, kind: Any) -> list[str]:
    """Return an example of the YAML file that a verb takes, if it takes one."""
    recipe = kind.kind_of_recipe
    example = (recipe or kind).example
    if not example:
        return []
    file = "The file of recipe=" if recipe else verbs.header(name).target
    lines = [f"{file} is YAML, such as:"]
    lines += [f"  {line}" for line in example.strip().splitlines()]
    return [*lines, f"lens-hpc config {name} > my.yaml writes one with every setting.", ""]


def _by_group(kind: Any, described: "Sequence[Description]") -> list[str]:
    """List settings by the group that they belong to, those of none at first."""
    groups: dict[str, list[Description]] = {}
    for setting in described:
        group = setting.key.partition(".")[0] if "." in setting.key else ""
        groups.setdefault(group, []).append(setting)

    lines = _listed(groups.pop("", []))
    for group, settings in groups.items():
        lines += ["", *_paragraph(f"{group}: {_purpose_of(kind, group)}"), *_listed(settings)]
    return lines


def _purpose_of(kind: Any, group: str) -> str:
    """Return the first sentence of a group's docstring."""
    from lens_hpc.describing import kinds_within

    inner = {part.__name__: part for part in kinds_within(kind).values()}
    annotation = str(kind.model_fields[group].annotation)
    purposes = [part.__doc__ for name, part in inner.items() if name in annotation]
    return (purposes[0] or "").partition("\n")[0] if purposes else ""


def _listed(described: "Sequence[Description]") -> list[str]:
    lines = []
    indent = " " * 6
    for setting in described:
        lines += textwrap.wrap(
            f"{setting.key} = {setting.default}",
            WIDTH,
            initial_indent="  ",
            subsequent_indent=indent,
        )
        lines += textwrap.wrap(
            setting.meaning, WIDTH, initial_indent=indent, subsequent_indent=indent
        )
    return lines


# ---- lines ----


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _entry(name: str, meaning: str) -> list[str]:
    return textwrap.wrap(
        meaning,
        WIDTH,
        initial_indent=f"  {name:<{NAME_WIDTH - 2}}",
        subsequent_indent=" " * NAME_WIDTH,
    )


def _command(line: str) -> list[str]:
    """Return a command, on as many lines as it needs, as a shell takes it."""
    lines = textwrap.wrap(
        line,
        WIDTH - 2,
        initial_indent="  ",
        subsequent_indent=" " * 6,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
