"""Each verb's extra brings what the verb imports, and what is missing is told with its extra."""

import sys
import tomllib
from pathlib import Path

import grimp
import pytest

import lens_hpc
from lens_hpc import cli, extras, verbs
from lens_hpc.errors import UserError
from lens_hpc.extras import NAMES, OF_DEVELOPERS, lists_of, missing_packages_told, packages_of
from tests.tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = PROJECT["dependencies"] + [
    f'{requirement}; extra == "{extra}"'
    for extra, requirements in PROJECT["optional-dependencies"].items()
    for requirement in requirements
]
LISTS = lists_of(REQUIREMENTS)
BASE = {text.partition(">")[0] for text in PROJECT["dependencies"]}

BESIDE = {"deepspeed", "wandb", "mlflow-skinny"}
"""Packages of extras that one adds to another: imported where a setting asks for them."""
WITH_OTHERS = {"pydantic_core", "torchvision"}
"""Packages that come with another of the same extra: pydantic, timm."""
FOR_TRAINING = {"pack": {"torch"}, "": {"torch"}}
"""What an extra lacks, as the work that needs it belongs to another: a split as torch's Dataset."""


@pytest.fixture(autouse=True)
def lists_of_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed lens_hpc may be older than the tree."""
    monkeypatch.setattr(extras, "_lists", lambda: LISTS)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("lens_hpc", include_external_packages=True)


def lacking(imports: grimp.ImportGraph, module: str, extra: str) -> set[str]:
    """Return what a module imports, now or later, that neither base nor extra brings."""
    reached = {name.partition(".")[0] for name in imports.find_upstream_modules(module)}
    foreign = reached - set(sys.stdlib_module_names) - {"lens_hpc"} - WITH_OTHERS
    distributions = {NAMES.get(name, {"yaml": "pyyaml"}.get(name, name)) for name in foreign}
    return distributions - BASE - packages_of(extra, LISTS) - BESIDE


@pytest.mark.parametrize("verb", verbs.names())
def test_the_extra_of_a_verb_brings_all_that_it_imports(
    imports: grimp.ImportGraph, verb: str
) -> None:
    extra = verbs.header(verb).extra
    assert not extra or extra in LISTS
    missing = lacking(imports, f"lens_hpc.verbs.{verb}", extra)
    assert missing <= FOR_TRAINING.get(extra, set())


def test_datasets_need_the_base_and_finders_the_extra_of_training(
    imports: grimp.ImportGraph,
) -> None:
    assert lacking(imports, "lens_hpc.dataset.dataset", "") == {"torch"}
    assert lacking(imports, "lens_hpc.scoring.finder", "train") == set()
    assert "torch" in lacking(imports, "lens_hpc.scoring.finder", "")


def test_all_is_all_that_a_user_runs() -> None:
    everything = set().union(*(packages_of(extra, LISTS) for extra in LISTS.keys() - OF_DEVELOPERS))
    assert packages_of("all", LISTS) == everything


@pytest.mark.parametrize(
    ("package", "extra", "told"),
    [
        ("torch", "simulate", "torch is not installed: pip install 'lens_hpc[simulate]'"),
        ("torch", "inject", "torch is not installed: pip install 'lens_hpc[inject]'"),
        ("cv2", "train", "cv2 is not installed: pip install 'lens_hpc[train]'"),
        ("deepspeed", "train", "deepspeed is not installed: pip install 'lens_hpc[deepspeed]'"),
        ("werkzeug", "", "werkzeug is not installed: pip install 'lens_hpc[grade]'"),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    package: str, extra: str, told: str
) -> None:
    with pytest.raises(UserError) as error, missing_packages_told(extra):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    assert str(error.value) == told


@pytest.mark.parametrize("name", ["mine", "torch.nothing", "pytest", None])
def test_what_no_extra_brings_is_an_error_as_it_is(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), missing_packages_told("train"):
        raise ModuleNotFoundError("no such thing", name=name)


def test_the_terminal_and_python_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("lens_hpc.verbs.info.run", run)
    told = "torch is not installed: pip install 'lens_hpc[train]'"
    with pytest.raises(UserError) as error:
        lens_hpc.info(tmp_path)
    assert str(error.value) == told
    assert cli.main(["info", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"lens-hpc: info: {told}\n"


def test_the_version_is_looked_up_when_it_is_asked_for() -> None:
    assert lens_hpc.__version__[0].isdigit()
    assert "__version__" in dir(lens_hpc)
