"""What people get wrong in YAML: the line at fault, and what to do about it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc import settings
from lens_hpc.errors import UserError
from lens_hpc.yaml_parsing import YamlError, parse_yaml

MISTAKES = {
    "run: r\ndata:\n\tdataset: d": (3, "it holds a tab; write blanks"),
    "run: r\ndata:\n  dataset: d\n   workers: 3": (
        4,
        "it is indented deeper than the line above, which has a value already; settings of one "
        "group begin in one column",
    ),
    "run: r\ndata:\n  dataset: d\n workers: 3": (
        4,
        "it is indented as no line above; settings of one group begin in one column",
    ),
    "run: r\n\nrun: s": (3, "the key 'run' stands twice, first in line 1"),
    "run = r\ndata: {dataset: d}": (1, "in a file, settings have a colon: run: r"),
    "run: r\ndata.dataset = d": (2, "in a file, settings have a colon: data.dataset: d"),
    "run:r\ndata: {dataset: d}": (1, "behind the colon must be a blank: run: r"),
    "data:\n  dataset:d\n  workers: 3": (2, "behind the colon must be a blank: dataset: d"),
    "run: r\nnonsense\ndata: d": (2, "it is no `key: value`"),
    "run: r\ndata: {dataset: d\ntrain: {epochs: 3}": (
        2,
        "its { is not closed, or a comma is missing",
    ),
    "bands: [g, r\nunits: x": (1, "its [ is not closed, or a comma is missing"),
    'run: "r\ndata: d': (1, "it opens a quote that is not closed"),
    "run: %r": (1, 'a text that begins with % needs quotes: run: "%r"'),
    "run: @r  # here": (1, 'a text that begins with @ needs quotes: run: "@r"'),
    "where: *": (1, 'a text that begins with * needs quotes: where: "*"'),
    "images: *.fits": (1, 'a text that begins with * needs quotes: images: "*.fits"'),
    "run: r: s": (1, 'a text with a colon and a blank needs quotes: run: "r: s"'),
    "name: a\nimages: {id}.npy": (
        2,
        'a text that begins with a brace needs quotes: images: "{id}.npy"',
    ),
    "images: [x].npy": (1, 'a text that begins with a bracket needs quotes: images: "[x].npy"'),
    "images: {id}": (1, 'a text with braces needs quotes: "{id}"'),
    "where: 'a' == b": (1, "behind the closing quote stands more; put all of it into other quotes"),
    "run: r\n- data: d": (2, "it is an item of a list; leave out the dash"),
    'images: "{id:\\d+}.npy"': (
        1,
        "in double quotes, a backslash is written twice; take single quotes",
    ),
    "run: r\n---\nrun: s": (2, "it begins a second document (---); keep one of them"),
    "run: !code r": (1, "settings have no tags, such as !code; leave it out"),
    "run: a\x07b": (1, "it holds the character U+0007; remove it"),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_what_to_do(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        settings.read_yaml(file)
    number, reason = MISTAKES[text]
    line = text.splitlines()[number - 1].expandtabs(4)
    assert str(error.value) == f"{file}: line {number} is not valid YAML: {reason}\n  {line}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; write `key: value` lines into it"),
        (b"# nothing\n", "is empty; write `key: value` lines into it"),
        (b"- run: r\n", "must hold `key: value` lines, not a list"),
        (b"run", "must hold `key: value` lines, not a value"),
        (b"\x89HDF\r\n", "is no text; name a YAML file of `key: value` lines"),
    ],
)
def test_a_file_that_holds_no_settings_says_so(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        settings.read_yaml(file)
    assert str(error.value) == f"{file}: {said}"


def test_a_run_in_place_of_its_config_is_told_where_that_is(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=r"is a folder; its settings are in .*/config\.yaml$"):
        settings.read_yaml(tmp_path)


@given(st.text("ab:{}[]-'\"#%*&!|>, \n\t\\=", max_size=40))
def test_any_text_is_read_as_the_library_does_or_told_by_one_of_its_lines(text: str) -> None:
    mistake = mistake_of(text)
    if mistake is None:
        yaml.safe_load(text)
    else:
        assert str(mistake)
        assert 1 <= mistake.line <= len(text.splitlines()) + 1
        assert "unicode string" not in str(mistake)


def mistake_of(text: str) -> YamlError | None:
    try:
        parse_yaml(text)
    except YamlError as error:
        return error
    return None
