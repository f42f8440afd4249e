"""The grading page as one file, which needs no server: it can be mailed, and opened anywhere.

Scripts and style stand in the page, allowed by their hashes, and so do all cutouts. Nothing else is
ever loaded.
"""

import base64
import hashlib
import io
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from lens_hpc.errors import UserError
from lens_hpc.files import whole_file
from lens_hpc.grading.shown_items import ShownItems
from lens_hpc.grading.views import draw_view
from lens_hpc.logs import logger

LARGEST_PAGE = 500_000_000
"""Bytes of a page that browsers open with ease."""
ITEMS_AT_ONCE = 100
JPEG_QUALITY = 92

STYLE_LINK = re.compile(r'<link rel="stylesheet" href="(\S+)">')
SCRIPT_LINK = re.compile(r'<script src="(\S+)"></script>')
CHARSET = '<meta charset="utf-8">'


def write_page(file: Path, items: ShownItems) -> None:
    """Write the page of a grading as one file, whole or not at all, and tell its size.

    Raises UserError when the page would be too large, or cannot be written.
    """
    before, after = _page_around_data()
    with whole_file(file) as aside, aside.open("w", encoding="utf-8") as page:
        page.write(before)
        page.write(_block("grading", items.describe()))
        page.write(_block("items", items.facts(0, len(items))))

        for start in range(0, len(items), ITEMS_AT_ONCE):
            _write_pictures(page, items, start)
            if start == 0:
                _check_size(file, page.tell() / min(ITEMS_AT_ONCE, len(items)), len(items))
        page.write(after)
    logger.info("%s: %.1f MB", file, file.stat().st_size / 1e6)


def _write_pictures(page: TextIO, items: ShownItems, start: int) -> None:
    """Write a block for each of some items, which is read when the item is looked at."""
    images = items.images(start, ITEMS_AT_ONCE)
    facts = items.facts(start, ITEMS_AT_ONCE)
    for item, image in zip(facts, images, strict=True):
        page.write(_block(f"pictures-{item['item']}", _draw_views(image, items)))


def _draw_views(image: np.ndarray, items: ShownItems) -> dict[str, str]:
    """Return the address of each view of a cutout: the picture itself."""
    bands = items.record.bands
    return {view: _address(draw_view(image, bands, view)) for view in items.views}


def _address(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _check_size(file: Path, bytes_per_item: float, count: int) -> None:
    """Raise UserError where the page would be too large."""
    expected = bytes_per_item * count
    if expected > LARGEST_PAGE:
        fitting = int(LARGEST_PAGE / bytes_per_item)
        raise UserError(
            f"page = {file}: would have about {expected / 1e6:,.0f} MB, too many for a browser; "
            f"give limit={fitting} with another output, or leave page out and serve it"
        )


# ---- the page around the data ----


def _page_around_data() -> tuple[str, str]:
    """Return what stands in the page before the data and behind them."""
    page = _read("page.html")
    style = _read(*STYLE_LINK.findall(page))
    scripts = [_read(name) for name in SCRIPT_LINK.findall(page)]

    page = STYLE_LINK.sub(lambda _: f"<style>{style}</style>", page)
    page = page.replace(CHARSET, f"{CHARSET}\n{_policy(style, scripts)}")
    first, *_ = SCRIPT_LINK.finditer(page)
    written = "".join(f"<script>{script}</script>\n" for script in scripts)
    return page[: first.start()], written + "</body>\n</html>\n"


def _read(name: str) -> str:
    return (resources.files("lens_hpc.grading") / "page" / name).read_text(encoding="utf-8")


def _policy(style: str, scripts: list[str]) -> str:
    """Return what forbids the browser everything but what stands in the page."""
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": _hash(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    content = "; ".join(f"{name} {value}" for name, value in rules.items())
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _block(name: str, content: Any) -> str:
    """Return data as a block of a page, in which no text can end the block."""
    text = json.dumps(content).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'
