"""The page as one file: all of it is there, and nothing else may be loaded."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens_hpc.errors import UserError
from lens_hpc.grading import embed
from lens_hpc.grading.embed import write_page
from lens_hpc.grading.shown_items import ShownItems
from lens_hpc.grading.views import draw_view
from tests.grading.browsers import EVIL, make_candidates, open_items

ROWS = 6


class Blocks(HTMLParser):
    """Every script and style of a page, by id or number, and every address that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.data: dict[str, str] = {}
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.addresses: list[str] = []
        self.policy = ""
        self._into = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.addresses += [values[name] for name in ("src", "href") if name in values]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        self._into = values.get("id", tag) if tag in {"script", "style"} else ""

    def handle_endtag(self, tag: str) -> None:
        self._into = ""

    def handle_data(self, text: str) -> None:
        if self._into == "script":
            self.scripts.append(text)
        elif self._into == "style":
            self.styles.append(text)
        elif self._into:
            self.data[self._into] = text


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ShownItems:
    folder = tmp_path_factory.mktemp("embed")
    return open_items(make_candidates(folder, ROWS), folder / "grading")


def page_of(items: ShownItems, folder: Path) -> Blocks:
    file = folder / "page.html"
    write_page(file, items)
    return Blocks(file.read_text(encoding="utf-8"))


def test_scripts_and_style_are_allowed_by_their_hashes_and_nothing_else_is(
    items: ShownItems, tmp_path: Path
) -> None:
    page = page_of(items, tmp_path)
    assert page.addresses == ["data:,"], "the icon alone"
    assert len(page.scripts) == 6
    assert len(page.styles) == 1

    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules.pop("img-src") == "data:"
    for name, contents in (("script-src", page.scripts), ("style-src", page.styles)):
        hashes = [hashlib.sha256(content.encode()).digest() for content in contents]
        expected = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
        assert rules.pop(name).split() == expected
    assert set(rules.values()) == {"'none'"}
    assert {"default-src", "base-uri", "form-action"} == set(rules)


def test_no_style_and_no_handler_stands_in_the_page_itself() -> None:
    text = (Path(embed.__file__).parent / "page" / "page.html").read_text()
    assert re.findall(r"\s(?:style|on\w+)=", text) == []
    scripts = (Path(embed.__file__).parent / "page").glob("*.js")
    for script in scripts:
        written = script.read_text()
        assert "innerHTML" not in written, script
        assert "</script" not in written, script


def test_data_and_pictures_are_those_of_the_server(items: ShownItems, tmp_path: Path) -> None:
    page = page_of(items, tmp_path)
    assert json.loads(page.data["grading"]) == items.describe() | {
        "shape": [12, 12],
        "bands": ["g", "r"],
    }
    told = json.loads(page.data["items"])
    assert told == items.facts(0, ROWS)
    assert told[0]["columns"]["field"] == EVIL

    images = items.images(0, ROWS)
    for item, image in zip(told, images, strict=True):
        pictures = json.loads(page.data[f"pictures-{item['item']}"])
        assert list(pictures) == items.views
        for view, address in pictures.items():
            content = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
            seen = np.asarray(Image.open(io.BytesIO(content)), dtype=float)
            expected = np.asarray(draw_view(image, ("g", "r"), view), dtype=float)
            assert abs(seen - expected).mean() < 12, "but for what JPEG loses of the noise"


def test_a_page_that_is_too_large_says_what_would_fit(
    items: ShownItems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_page(tmp_path / "page.html", items)
    size = (tmp_path / "page.html").stat().st_size
    monkeypatch.setattr(embed, "LARGEST_PAGE", size // 2)
    with pytest.raises(
        UserError, match=r"page = .*new\.html: would have .* MB.* give limit=[2-5] "
    ):
        write_page(tmp_path / "new.html", items)
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
