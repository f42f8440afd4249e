from pathlib import Path

import pytest

from lens_hpc.errors import UserError
from lens_hpc.extensions import find_object

KNOWN = {"fusion": int, "other": float}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package outside, which says when it is imported."""
    folder = tmp_path / "ownpackage"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\nclass Mine: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_known_name_needs_no_code() -> None:
    assert find_object("model.name", "fusion", KNOWN, ()) is int


def test_a_dotted_name_is_imported_where_its_package_is_allowed(package: Path) -> None:
    found = find_object("model.name", "ownpackage.models.Mine", KNOWN, ["ownpackage"])
    assert found.__name__ == "Mine"
    assert (package / "imported").exists()


def test_a_dotted_name_alone_imports_nothing(package: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name = .*; add code=\[ownpackage\]"):
        find_object("model.name", "ownpackage.models.Mine", KNOWN, ["other"])
    assert not (package / "imported").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fuson", "unknown; valid: fusion, other, or mypackage.module.Name"),
        ("ownpackage.models.Yours", "cannot be imported"),
        ("ownpackage.nothing.Mine", "is ownpackage installed"),
    ],
)
def test_what_is_not_there_is_named(package: Path, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_object("model.name", name, KNOWN, ["ownpackage"])


def test_one_package_may_be_given_as_a_text_and_is_not_searched_for_parts(package: Path) -> None:
    assert find_object("model.name", "ownpackage.models.Mine", KNOWN, "ownpackage")
    with pytest.raises(UserError, match=r"add code=\[own\]"):
        find_object("model.name", "own.models.Mine", KNOWN, "ownpackage")
