"""The words of a command: what stands first, settings, and words as other programs have them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lens_hpc import verbs


def split_arguments(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separate what stands before the settings from the settings, `key=value` each.

    A file whose name has an equals sign is no setting, where it stands first.
    """
    targets = []
    overrides = []
    for position, word in enumerate(words):
        # A Path would raise for a word that is too long for a name.
        is_target = "=" not in word or (position == 0 and os.path.exists(word))  # noqa: PTH110
        if is_target:
            targets.append(Path(word))
        else:
            overrides.append(word)
    return targets, overrides


# ---- words as other programs have them ----


class _Foreign(NamedTuple):
    """Words that mean a setting, in another way of writing than ours."""

    written: str
    """As they stand on the command line."""
    name: str
    """Name of the setting, as it was written, without dashes or colon."""
    value: str
    is_flag: bool


def foreign_words(verb: str, words: Sequence[str]) -> str:
    """Say how settings are written that came as --key value, key value or key = value.

    The answer is empty where there are none.
    """
    if not _may_be_foreign(words):
        return ""
    from lens_hpc.describing import describe  # pydantic: only where something is wrong

    header = verbs.header(verb)
    keys = [setting.key for setting in describe(verbs.module(verb).Settings)]
    keys += ["processes"] * bool(header.processes)
    target = header.target.split()[0]
    known = {}
    unknown = []
    for foreign in _find_foreign(words, keys):
        key = _nearest_key(keys, foreign.name)
        if foreign.is_flag and foreign.name in {target.lower(), header.target_setting}:
            return f"{target} stands first, without a flag: lens-hpc {verb} {foreign.value} ..."
        if key:
            known[f"{key}={foreign.value}"] = foreign.written
        else:
            unknown.append(foreign.written)

    if unknown:
        listed = " ".join(unknown)
        return f"{listed}: is no setting; settings are key=value: lens-hpc {verb} --help lists them"
    if known:
        right, wrong = " ".join(known), " ".join(known.values())
        return f"settings have neither dashes nor blanks: write {right} in place of {wrong}"
    return ""


def _may_be_foreign(words: Sequence[str]) -> bool:
    loose = [word for word in words[1:] if "=" not in word]
    return bool(loose) or any(word.startswith(("-", "=")) for word in words)


def _find_foreign(words: Sequence[str], keys: Sequence[str]) -> Iterator[_Foreign]:
    """Find the words that mean settings, and take the next ones for their values."""
    number = 0 if words[0].startswith("-") else 1
    while number < len(words):
        taken = _foreign_at(words[number:], keys)
        if taken:
            yield taken
        number += taken.written.count(" ") + 1 if taken else 1


def _foreign_at(words: Sequence[str], keys: Sequence[str]) -> _Foreign | None:
    """Return the setting that the first of these words begins, if it is written in another way."""
    word = words[0]
    following = [other for other in words[1:2] if not other.startswith("-")]
    value_follows = bool(following) and "=" not in following[0]

    if word.startswith("-"):
        name, equals, value = word.lstrip("-").partition("=")
        if equals:
            return _Foreign(word, name, value, is_flag=True)
        if value_follows:
            return _Foreign(f"{word} {words[1]}", name, words[1], is_flag=True)
        return _Foreign(word, name, "true", is_flag=True)

    name = word.rstrip(":=")
    if name not in keys or ("=" in word and not value_follows):
        return None
    if os.path.exists(word):  # noqa: PTH110 - a Path would raise for a long word
        return None
    if words[1:2] == ["="] and len(words) > 2:
        return _Foreign(" ".join(words[:3]), name, words[2], is_flag=False)
    if following and (value_follows or following[0].startswith("=")):
        return _Foreign(f"{word} {words[1]}", name, words[1].lstrip("="), is_flag=False)
    return None


def _nearest_key(keys: Sequence[str], name: str) -> str:
    from lens_hpc.setting_problems import nearest_key

    name = name.replace("-", "_")
    return name if name in keys else nearest_key(keys, name, name.rpartition(".")[2])
