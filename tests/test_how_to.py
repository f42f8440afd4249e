"""The how-to pages tell the truth: their blocks are run, in order, beside a copy of the package.

A block whose first line is `# some/file.py` or `# some/file.yaml` is the content of that file, and
with `(append)` behind the name it is added to it. Other Python blocks and sh blocks are run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
BLOCK = re.compile(r"^```(python|yaml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:py|yaml))( \(append\))?\n")
TOO_LONG_SECONDS = 600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a copy of the package, so that a page may change it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lens_hpc", tmp_path / "lens_hpc", ignore=ignored)

    (tmp_path / "bin").mkdir()
    for name, module in (("lens-hpc", "-m lens_hpc"), ("python", "")):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        program.chmod(0o755)
    return tmp_path


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TOO_LONG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def follow(page: Path, folder: Path) -> str:
    """Do what a page says, and return what its commands printed."""
    printed = ""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks, f"{page} has nothing to run"
    for language, content in blocks:
        name = FILE_NAME.match(content)
        if name:
            file = folder / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            before = file.read_text() if name[2] else ""
            file.write_text(before + content)
        elif language == "sh":
            printed += run(folder, "bash", "-ec", content)
        else:
            assert language == "python", f"{page}: a {language} block without a file's name"
            printed += run(folder, sys.executable, "-c", content)
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_works(page: Path, folder: Path) -> None:
    follow(page, folder)


@pytest.mark.slow
def test_a_dropped_verb_and_metric_are_found_by_everything(folder: Path) -> None:
    follow(ROOT / "docs" / "how-to" / "verb.md", folder)
    follow(ROOT / "docs" / "how-to" / "metric.md", folder)
    assert "  count " in run(folder, "lens-hpc", "--help")
    assert "minimum = 1" in run(folder, "lens-hpc", "count", "--help")

    # The verb's page has packed a dataset; a training and an evaluation of it follow.
    script = """
    lens-hpc simulate more objects=600 size=48 seed=2
    lens-hpc pack more/recipe.yaml source=more output=more-shards
    lens-hpc train tiny.yaml
    lens-hpc evaluate runs/tiny
    """
    (folder / "tiny.yaml").write_text(
        "run: runs/tiny\ndata: {dataset: more-shards}\n"
        "model: {inputs: features}\ntrain: {epochs: 1, global_batch_size: 32}\n"
    )
    printed = run(folder, "bash", "-ec", script)
    results = folder / "runs" / "tiny" / "evaluation" / "test"
    metrics = json.loads((results / "metrics.json").read_text())
    report = (results / "report.html").read_text()

    key = "completeness_first_percent"
    assert key in metrics or key in metrics["not_said"]
    assert "completeness in the first 1% of the ranking" in report
    assert "in the first 1%" in printed


def test_there_is_a_page_for_each_thing_that_people_add() -> None:
    wanted = {"augmentation", "image-format", "metric", "model", "predict", "survey", "verb"}
    assert wanted <= {page.stem for page in PAGES}
