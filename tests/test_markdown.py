"""Blocks of pages are found as a reader sees them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.markdown import Block, blocks_of, exempt_lines

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLLOWED = [ROOT / "README.md", ROOT / "docs" / "install.md", *(ROOT / "docs" / "how-to").iterdir()]
"""Pages whose blocks are run: by tests/integration/test_readme.py and tests/test_how_to.py."""

PAGE = """# A page

```sh
lens-hpc --help
```

- In a list:
  <!-- not run: needs a cluster -->
  ```sh
  sbatch job.sh
    --indented
  ```
<!-- not run: of another block -->

```
plain
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    return file


def test_blocks_have_their_language_reason_and_line(page: Path) -> None:
    assert blocks_of(page) == [
        Block("sh", "lens-hpc --help\n", "", 3),
        Block("sh", "sbatch job.sh\n  --indented\n", "needs a cluster", 9),
        Block("", "plain\n", "", 15),
    ]


def test_what_is_not_run_is_told_with_its_reason(page: Path) -> None:
    assert exempt_lines(page) == [
        "page.md:9: not run: needs a cluster\nsbatch job.sh\n  --indented\n"
    ]


def test_a_block_without_an_end_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n```sh\nls\n")
    with pytest.raises(AssertionError, match=r"page\.md:2"):
        blocks_of(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_of_the_pages_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        is_run = bool(block.reason) or block.language not in {"sh", "python"} or page in FOLLOWED
        assert is_run, f"{page}:{block.line}"


EXEMPT = [text for page in PAGES for text in exempt_lines(page)]


@pytest.mark.parametrize("text", EXEMPT, ids=lambda text: text.partition(": ")[0])
def test_what_is_not_run_is_shown(text: str) -> None:
    """Each exempt block is in the summary of a run of the tests, as one that was skipped."""
    pytest.skip(text)


words = st.text("ab #`<!\n", max_size=12).filter(lambda text: "```" not in text)
blocks = st.tuples(st.sampled_from(["sh", "python", "yaml", ""]), words, st.sampled_from(["", "x"]))


@given(wanted=st.lists(blocks, max_size=5))
def test_what_was_written_is_found(tmp_path_factory: pytest.TempPathFactory, wanted: list) -> None:
    page = tmp_path_factory.mktemp("pages") / "page.md"
    text = ""
    for language, content, reason in wanted:
        mark = f"<!-- not run: {reason} -->\n" if reason else "\n"
        text += f"{mark}```{language}\n{content}\n```\n"
    page.write_text(text)
    found = [(block.language, block.content, block.reason) for block in blocks_of(page)]
    assert found == [(language, f"{content}\n", reason) for language, content, reason in wanted]
