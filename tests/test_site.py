"""The site and the pages: they build offline without a warning, and every link leads somewhere."""

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.markdown import blocks_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

from generate import pages  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
WIDTHS = (1280, 390)
"""Of a laptop's window and of a telephone, pixels."""
FITS = "document.scrollingElement.scrollWidth <= window.innerWidth"
SECONDS_TO_SETTLE = 5
"""So long the theme's script may take to put tables into frames that scroll."""


# ---- Markdown, as it is read in the repository ----


def markdown_pages() -> dict[Path, str]:
    """Return the text of each page that is read in the repository, notebooks too, by its file."""
    files = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("slurm/*.md")]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    for file in DOCS.glob("*.ipynb"):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        texts[file] = "\n\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
    return texts


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCED.sub("", text))
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in words}


def test_every_link_and_picture_of_the_pages_is_there() -> None:
    texts = markdown_pages()
    lost = []
    count = 0
    for page, text in texts.items():
        for link in LINK.findall(FENCED.sub("", text)):
            address = urlsplit(link)
            if address.scheme:
                continue
            count += 1
            target = (page.parent / address.path).resolve() if address.path else page
            is_there = target.exists()
            if address.fragment and is_there:
                is_there = address.fragment in anchors_of(texts[target])
            if not is_there:
                lost.append(f"{page.relative_to(ROOT)}: {link}")
    assert lost == []
    assert count > 100


def test_the_reference_says_what_the_code_says() -> None:
    stale = [
        file.name for file, text in pages().items() if file.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: python docs/generate.py"


def test_what_python_prints_on_the_pages_is_so() -> None:
    """A `pycon` block shows what is typed and what is printed."""
    tried = 0
    for page in sorted((DOCS / "explanation").glob("*.md")):
        session = "\n".join(block.content for block in blocks_of(page) if block.language == "pycon")
        test = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
        result = doctest.DocTestRunner().run(test)
        assert result.failed == 0
        tried += result.attempted
    assert tried > 3


def test_every_page_is_on_the_site_and_in_the_list_of_all_pages() -> None:
    listed = (DOCS / "index.md").read_text(encoding="utf-8")
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for file in [*DOCS.rglob("*.md"), *DOCS.glob("*.ipynb")]:
        name = file.relative_to(DOCS).as_posix()
        assert f": {name}\n" in navigation, name
        assert f"]({name})" in listed or name == "index.md", name


# ---- the site ----


class Page(HTMLParser):
    """The addresses and anchors of a page of the site."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        """What a browser fetches without a click."""
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        address = values.get("src") or values.get("href")
        if address and tag == "a":
            self.links.append(address)
        elif address and values.get("rel") not in {"canonical", "next", "prev"}:
            self.loaded.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning an error, where no other host can be reached."""
    pytest.importorskip("mkdocs_jupyter", reason="needs: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site") / "site"
    words = ["build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *words],
        cwd=ROOT,
        env=os.environ | NO_NETWORK,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def site_pages(site: Path) -> dict[Path, Page]:
    # The page of lost addresses is for a server, at whose root it begins.
    files = [file for file in site.rglob("*.html") if file.name != "404.html"]
    return {file: Page(file) for file in files}


def lost_addresses(pages: dict[Path, Page]) -> Iterator[str]:
    for file, page in pages.items():
        for text in page.links + page.loaded:
            address = urlsplit(text)
            if address.scheme:
                continue
            path = unquote(address.path)
            target = (file.parent / path).resolve() if path else file
            fragment = unquote(address.fragment)
            anchors = pages[target].anchors if target in pages else {fragment}
            if not target.is_file() or (fragment and fragment not in anchors):
                yield f"{file.name}: {text}"


@pytest.mark.slow
def test_every_link_and_picture_of_the_site_is_there(site_pages: dict[Path, Page]) -> None:
    assert sorted(lost_addresses(site_pages)) == []
    assert len(site_pages) > 20


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site_pages: dict[Path, Page]) -> None:
    for file, page in site_pages.items():
        elsewhere = [text for text in page.loaded if urlsplit(text).scheme not in {"", "data"}]
        assert elsewhere == [], file
        assert "//" not in {text[:2] for text in page.loaded}, file


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium")
def test_pages_fit_a_laptop_and_a_telephone_without_a_network(
    site: Path, site_pages: dict[Path, Page]
) -> None:
    from playwright.sync_api import TimeoutError, sync_playwright

    asked: list[str] = []
    mistakes: list[str] = []
    too_wide = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in WIDTHS:
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("pageerror", lambda error: mistakes.append(str(error)))
            for file in site_pages:
                tab.goto(file.as_uri())
                try:
                    tab.wait_for_function(FITS, timeout=1000 * SECONDS_TO_SETTLE)
                except TimeoutError:
                    too_wide.append(f"{file.relative_to(site)} at {width}")

        # Also without a server, words are found.
        tab = browser.new_page()
        tab.goto((site / "index.html").as_uri())
        tab.click(".md-search__input")
        tab.locator(".md-search__input").press_sequentially("isotonic")
        found = tab.locator(".md-search-result__item a").first.get_attribute("href")
        browser.close()

    assert found is not None
    assert "explanation/intervals.html" in found
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data", "blob"}
    assert mistakes == []
    assert too_wide == []
