"""README, the page on installing and the tutorial are followed literally, where nothing is there.

In a new folder, with an empty environment and HOME: the first command of the README makes the
virtual environment that all others use, and the demo. This is where the demo runs in CI.
"""

import subprocess
from pathlib import Path

import pytest

from tests.markdown import Block, blocks_of
from tests.tree import ROOT, bare_environment, copy_tree

# Installing takes minutes, and the demo takes eight on an idle machine.
TOO_LONG_SECONDS = 3600

RUN_TUTORIAL = """
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("docs/tutorial.ipynb", as_version=4)
for cell in notebook.cells:
    cell.source = cell.source.replace("%%bash\\n", "%%bash -e\\n")
NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": "docs"}}).execute()
"""


def script_of(blocks: list[Block]) -> str:
    """Return one shell script of all blocks of a page, so that what one changes holds for the next.

    A block whose first line is `# some/file.yaml` is the content of that file.
    """
    lines = ["set -e"]
    for block in blocks:
        lines.append(f"echo '---- line {block.line}'")
        if block.language == "sh":
            lines.append(block.content)
            continue
        reads = "python -" if block.language == "python" else f"cat > {_file_name(block)}"
        lines.append(f"{reads} <<'END OF BLOCK'\n{block.content}END OF BLOCK")
    return "\n".join(lines)


def _file_name(block: Block) -> str:
    mark, name = block.content.partition("\n")[0].split(maxsplit=1)
    assert mark == "#", f"line {block.line}: a {block.language} block without a file's name"
    assert name.endswith(f".{block.language}")
    return name


def run(script: str, folder: Path, environment: dict[str, str]) -> None:
    output = folder / "output.txt"
    with output.open("w") as file:
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=TOO_LONG_SECONDS,
            check=False,
        )
    assert done.returncode == 0, output.read_text(errors="replace")[-6000:]


@pytest.mark.slow
def test_readme_and_tutorial_are_followed_literally(tmp_path: Path) -> None:
    folder = copy_tree(tmp_path / "lens_hpc")
    environment = bare_environment(tmp_path / "home")
    for page in ("README.md", "docs/install.md"):
        blocks = [block for block in blocks_of(ROOT / page) if not block.reason]
        run(script_of(blocks), folder, environment)
    assert (folder / "runs" / "demo" / "evaluation" / "test" / "report.html").is_file()

    tutorial = f"source .venv/bin/activate\npython - <<'END'\n{RUN_TUTORIAL}\nEND"
    run(tutorial, folder, environment)


def test_a_page_becomes_one_script() -> None:
    blocks = [
        Block("yaml", "# a.yaml\nkey: $HOME\n", "", 1),
        Block("sh", "variable=held\n", "", 5),
        Block("python", "print('$variable', 1)\n", "", 9),
        Block("sh", 'cat a.yaml; echo "$variable"; false\necho not reached\n', "", 13),
    ]
    done = subprocess.run(
        ["/bin/bash", "-c", f"cd $(mktemp -d)\n{script_of(blocks)}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if not line.startswith("----")]
    assert said == ["$variable 1", "# a.yaml", "key: $HOME", "held"]
