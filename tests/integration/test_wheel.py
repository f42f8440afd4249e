"""The wheel: what is in it, and a mock survey found lenses in where nothing but it is installed."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import pack_survey, write_survey
from tests.tree import ROOT, copy_tree

pytestmark = pytest.mark.slow

TOO_LONG_SECONDS = 1800

READ_A_DATASET = """
import lens_hpc

dataset = lens_hpc.Dataset("shards")
assert dataset["train"][:3].images.shape[0] == 3
try:
    lens_hpc.Finder
except lens_hpc.UserError as error:
    print(error)
"""

THE_WHOLE_WAY = """
lens-hpc simulate survey objects=120 size=48 seed=1
lens-hpc pack survey/recipe.yaml source=survey output=mock
lens-hpc train "$1/configs/train/demo.yaml" data.dataset=mock run=runs/first train.epochs=1
lens-hpc evaluate runs/first
"""


def run(*command: str | Path, cwd: Path | None = None, bare: bool = False) -> str:
    """Run a command that must succeed, with an empty environment if bare; return its output."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={} if bare else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TOO_LONG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and sdist; the wheel is built from the sdist."""
    folder = tmp_path_factory.mktemp("build")
    tree = copy_tree(folder / "tree")
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", tree)
    run(sys.executable, "-m", "twine", "check", "--strict", *(folder / "dist").iterdir())
    return folder / "dist"


def of_kind(folder: Path, kind: str) -> Path:
    [file] = folder.glob(f"*{kind}")
    return file


def of_the_package() -> set[str]:
    files = (path for path in (ROOT / "lens_hpc").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}


def beside_it() -> set[str]:
    files = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "slurm").iterdir()]
    return {str(path.relative_to(ROOT)) for path in files if path.is_file()}


def test_wheel_and_sdist_hold_every_file_of_the_package(distributions: Path) -> None:
    with zipfile.ZipFile(of_kind(distributions, ".whl")) as wheel:
        names = wheel.namelist()
    with tarfile.open(of_kind(distributions, ".tar.gz")) as sdist:
        sources = sdist.getnames()

    code = {name for name in names if name.startswith("lens_hpc/")}
    data = {name.partition("/share/lens_hpc/")[2] for name in names} - {""}
    assert code == of_the_package()
    assert data == beside_it()
    assert {name.partition("/")[2] for name in sources} >= of_the_package() | beside_it()


def test_a_survey_is_searched_where_only_the_wheel_is(distributions: Path, tmp_path: Path) -> None:
    wheel, bin_ = of_kind(distributions, ".whl"), tmp_path / "venv" / "bin"
    install = (bin_ / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    folder = tmp_path / "empty"
    folder.mkdir()

    # Reading a dataset takes the base alone, and the rest says what it takes.
    run(*install, wheel)
    assert "torch" not in run(bin_ / "pip", "list")
    pack_survey(write_survey(tmp_path / "toy"), folder / "shards")
    run(bin_ / "lens-hpc", "verify", "shards", cwd=folder, bare=True)
    run(bin_ / "lens-hpc", "info", "shards", cwd=folder, bare=True)
    said = run(bin_ / "python", "-c", READ_A_DATASET, cwd=folder, bare=True)
    assert said.endswith("is not installed: pip install 'lens_hpc[train]'\n")

    run(*install, f"{wheel}[simulate,pack,train]")
    shared = tmp_path / "venv" / "share" / "lens_hpc"
    script = f'set -e\nPATH="{bin_}:/usr/bin:/bin"\n{THE_WHOLE_WAY}'
    run("/bin/bash", "-c", script, "bash", shared, cwd=folder, bare=True)
    assert (folder / "runs/first/evaluation/test/report.html").is_file()

    refused = subprocess.run(
        [bin_ / "lens-hpc", "export", "runs/first", "output=exported"],
        cwd=folder,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    told = "lens-hpc: export: onnx is not installed: pip install 'lens_hpc[export]'\n"
    assert (refused.returncode, refused.stderr) == (2, told)
