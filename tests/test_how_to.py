"""The how-to pages tell the truth: their blocks are run, in order, beside a copy of the package.

A block whose first line is `# some/file.py` or `# some/file.yaml` is the content of that file, and
with `(append)` behind the name it is added to it. Other Python blocks and sh blocks are run, but
for those that a page marks as not to be run.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import pack_survey, write_survey
from tests.integration.forked import PROGRAM, forks
from tests.markdown import blocks_of, exempt_lines

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
FOLLOWED_TOGETHER = ("verb", "metric")
"""Pages that have a test of their own."""
PACKAGE = "lens_hpc/"
FILE_NAME = re.compile(r"# (\S+\.(?:py|yaml))( \(append\))?\n")
PLAIN_LINES = re.compile(r"(lens-hpc [^\n$`|&;<>*#]+\n)+")
"""Commands for which no shell is needed."""
TOO_LONG_SECONDS = 600


class Reader:
    """Somebody who does what pages say, in a folder with a copy of the package to be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package_is_changed = False
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=ignored)

        (folder / "bin").mkdir()
        for name, module in (("lens-hpc", "-m lens_hpc"), ("python", "")):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            program.chmod(0o755)

    def follow(self, page: Path) -> str:
        """Do what a page says, and return what its commands printed."""
        print(*exempt_lines(page), sep="\n")
        blocks = [block for block in blocks_of(page) if block.language in {"python", "yaml", "sh"}]
        assert blocks, f"{page} has nothing to run"

        printed = ""
        for block in blocks:
            name = FILE_NAME.match(block.content)
            if block.reason:
                continue
            if name:
                self.write(name[1], block.content, appends=bool(name[2]))
            elif block.language == "sh":
                printed += self.run_shell(block.content)
            else:
                where = f"{page}:{block.line}"
                assert block.language == "python", f"{where}: yaml without the name of a file"
                printed += self.run_python(block.content)
        return printed

    def write(self, name: str, content: str, appends: bool) -> None:
        self.package_is_changed |= name.startswith(PACKAGE)
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if appends else ""
        file.write_text(before + content)

    def run_shell(self, content: str) -> str:
        lines = content.replace("\\\n", " ")
        if self.package_is_changed or not PLAIN_LINES.fullmatch(lines):
            return self.run("bash", "-ec", content)
        commands = [shlex.split(line)[1:] for line in lines.splitlines()]
        return "".join(self.run_fork(*words) for words in commands)

    def run_python(self, content: str) -> str:
        if self.package_is_changed:
            return self.run(sys.executable, "-c", content)
        file = self.folder / "block.py"
        file.write_text(content)
        return self.run_fork(program=(str(file),))

    def run(self, *command: str) -> str:
        """Run a command as a reader does, and return what it printed."""
        own = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=TOO_LONG_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def run_fork(self, *words: str, program: tuple[str, ...] = PROGRAM) -> str:
        """Run a command, or a file of Python, with the package as it is: so it starts at once."""
        output, errors = self.folder / "output", self.folder / "errors"
        command = forks().start(
            *words,
            program=program,
            output=output,
            errors=errors,
            cwd=self.folder,
            environment={"ACCELERATE_USE_CPU": "true"},
        )
        status = command.wait(TOO_LONG_SECONDS)
        said = output.read_text()
        assert status == 0, f"{words or program}\n{said[-2000:]}\n{errors.read_text()[-3000:]}"
        return said


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.stem not in FOLLOWED_TOGETHER],
    ids=lambda page: page.stem,
)
def test_what_a_page_says_works(page: Path, tmp_path: Path) -> None:
    Reader(tmp_path).follow(page)


@pytest.mark.slow
def test_a_dropped_verb_and_metric_are_found_by_everything(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for page in FOLLOWED_TOGETHER:
        reader.follow(ROOT / "docs" / "how-to" / f"{page}.md")
    assert "  count " in reader.run("lens-hpc", "--help")
    assert "minimum = 1" in reader.run("lens-hpc", "count", "--help")

    splits = "splits={train: 0.4, val: 0.1, test: 0.5}"
    pack_survey(write_survey(tmp_path / "toys", rows=500), tmp_path / "toy-shards", splits)
    (tmp_path / "tiny.yaml").write_text(
        "run: runs/tiny\ndata: {dataset: toy-shards}\n"
        "model: {inputs: features}\ntrain: {epochs: 1, global_batch_size: 32}\n"
    )
    printed = reader.run("bash", "-ec", "lens-hpc train tiny.yaml\nlens-hpc evaluate runs/tiny")
    results = tmp_path / "runs" / "tiny" / "evaluation" / "test"
    metrics = json.loads((results / "metrics.json").read_text())
    report = (results / "report.html").read_text()

    key = "completeness_first_percent"
    assert key in metrics or key in metrics["not_said"]
    assert "completeness in the first 1% of the ranking" in report
    assert "in the first 1%" in printed


def test_there_is_a_page_for_each_thing_that_people_add() -> None:
    wanted = {"augmentation", "image-format", "metric", "model", "predict", "survey", "verb"}
    assert wanted <= {page.stem for page in PAGES}
