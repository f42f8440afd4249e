"""Galleries of a report: cutouts that every user of a lens finder wants to see, in several views.

The views of a cutout lie side by side in one picture, so that the page needs no script to switch
between them: its style moves the picture.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from scipy.special import expit

from lens_hpc.dataset.split import Split
from lens_hpc.model.trained import TrainedModel
from lens_hpc.reporting import pictures
from lens_hpc.reporting.breakdown import Column
from lens_hpc.scoring.attention import attention_maps
from lens_hpc.scoring.predictions import Scores

TRUTHS = {1: "lens", 0: "non-lens", -1: "unlabelled"}
FEATURES_SHOWN = 6
# Sides of a picture, in pixels: larger cutouts would make a page of many megabytes.
LARGEST_SIDE = 160
QUALITY = 88
SHEET_COLUMNS = 8
TILE_SIDE = 128


@dataclass(frozen=True)
class Card:
    """A cutout, and what is known about it."""

    picture: str
    """Its views side by side: WebP as a data URI."""
    id: str
    truth: str
    """lens, non-lens or unlabelled."""
    rank: int
    """From 1, the highest score first."""
    probability: float
    kept: dict[str, str]
    """Its class, origin or field, as far as the results are broken down by them."""
    features: dict[str, float]
    """The first few."""


@dataclass(frozen=True)
class Gallery:
    """Cutouts that have something in common."""

    title: str
    meaning: str
    cards: list[Card]


@dataclass(frozen=True)
class Album:
    """All galleries of a report."""

    views: tuple[str, ...]
    """Names of the views in each picture, from the left."""
    bar: pictures.ScaleBar
    galleries: list[Gallery]


class _Choice(NamedTuple):
    """Which cutouts a gallery shows."""

    title: str
    meaning: str
    labels: tuple[int, ...]
    most: int = 24
    lowest_first: bool = False


TOP = _Choice("The top of the ranking", "the highest scores, whatever they are", (-1, 0, 1), 16)
CHOICES = (
    TOP,
    _Choice("Worst misses", "true lenses, the lowest score first", (1,), lowest_first=True),
    _Choice("Worst false alarms", "no lenses, the highest score first", (0,)),
    _Choice("Unlabelled, best-ranked", "the highest score first", (-1,)),
)
ALL_UNLABELLED = (TOP._replace(meaning="the highest scores", most=48),)


def make_album(
    split: Split,
    scores: Scores,
    members: Sequence[TrainedModel] = (),
    columns: Mapping[str, Column] | None = None,
) -> Album:
    """Return the galleries that have cutouts.

    `members` are the models that gave the scores, and `columns` what else is known of each row.
    """
    # Equal scores keep the order of the split, so that a report is the same every time.
    best_first = np.argsort(-scores.logits, kind="stable")
    chosen = _choose_rows(scores.labels, best_first)
    rows = np.unique(np.concatenate(list(chosen.values())))
    views = _draw_rows(split, rows, members)

    ranks = np.empty(len(best_first), dtype=np.int64)
    ranks[best_first] = np.arange(1, len(ranks) + 1)
    cards = _make_cards(split, rows, scores, ranks, views, columns or {})
    galleries = [
        Gallery(choice.title, choice.meaning, [cards[row] for row in its_rows.tolist()])
        for choice, its_rows in chosen.items()
    ]
    return Album(tuple(views[0]), pictures.scale_bar(split.manifest), galleries)


def _choose_rows(labels: np.ndarray, best_first: np.ndarray) -> dict[_Choice, np.ndarray]:
    """Return the rows of each gallery that has any."""
    choices = CHOICES if (labels >= 0).any() else ALL_UNLABELLED
    labels_in_order = labels[best_first]
    chosen = {}
    for choice in choices:
        rows = best_first[np.isin(labels_in_order, choice.labels)]
        if choice.lowest_first:
            rows = rows[::-1]
        if len(rows):
            chosen[choice] = rows[: choice.most]
    return chosen


# ---- cards ----


def _draw_rows(
    split: Split, rows: np.ndarray, members: Sequence[TrainedModel]
) -> list[dict[str, np.ndarray]]:
    """Return the views of each row, by their names."""
    images = split.take("images", rows)
    maps = attention_maps(members, images)
    bands = split.manifest.bands
    return [
        pictures.make_views(image, bands, None if maps is None else maps[number])
        for number, image in enumerate(images)
    ]


def _make_cards(
    split: Split,
    rows: np.ndarray,
    scores: Scores,
    ranks: np.ndarray,
    views: list[dict[str, np.ndarray]],
    columns: Mapping[str, Column],
) -> dict[int, Card]:
    """Return the card of each row."""
    names = split.manifest.features[:FEATURES_SHOWN]
    features = split.take("features", rows)[:, : len(names)].tolist()
    ids = split.ids(rows).tolist()
    probabilities = expit(scores.logits[rows].astype(np.float64)).tolist()

    cards = {}
    for number, row in enumerate(rows.tolist()):
        cards[row] = Card(
            picture=_as_strip(list(views[number].values())),
            id=ids[number],
            truth=TRUTHS[int(scores.labels[row])],
            rank=int(ranks[row]),
            probability=probabilities[number],
            kept={name: column.names[column.codes[row]] for name, column in columns.items()},
            features=dict(zip(names, features[number], strict=True)),
        )
    return cards


def _as_strip(views: list[np.ndarray]) -> str:
    """Return pictures (height, width, 3), 0 to 1, side by side as one, a data URI."""
    height, width, _ = views[0].shape
    scale = min(1, LARGEST_SIDE / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))

    strip = Image.new("RGB", (size[0] * len(views), size[1]))
    for number, view in enumerate(views):
        # The first row of pixels is at the bottom, as in FITS files.
        picture = Image.fromarray((view[::-1] * 255).astype(np.uint8))
        strip.paste(picture.resize(size, Image.Resampling.BOX), (size[0] * number, 0))

    content = io.BytesIO()
    strip.save(content, "webp", quality=QUALITY, method=4)
    return data_uri("image/webp", content.getvalue())


# ---- sheets ----


def save_sheets(folder: Path, album: Album) -> None:
    """Write a PNG of each gallery: the first view of its cutouts, row by row."""
    for gallery in album.galleries:
        tiles = [_first_view(card.picture, len(album.views)) for card in gallery.cards]
        rows = -(-len(tiles) // SHEET_COLUMNS)
        sheet = Image.new("RGB", (SHEET_COLUMNS * TILE_SIDE, rows * TILE_SIDE), "white")
        for number, tile in enumerate(tiles):
            row, column = divmod(number, SHEET_COLUMNS)
            sheet.paste(tile, (column * TILE_SIDE, row * TILE_SIDE))

        name = re.sub(r"\W+", "_", gallery.title.lower())
        content = io.BytesIO()
        sheet.save(content, "png")
        (folder / f"{name}.png").write_bytes(content.getvalue())


def _first_view(picture: str, views: int) -> Image.Image:
    """Return the first of the views in a card's picture, as a tile of a sheet."""
    content = base64.b64decode(picture.partition(",")[2])
    strip = Image.open(io.BytesIO(content))
    first = strip.crop((0, 0, strip.width // views, strip.height))
    return ImageOps.pad(first, (TILE_SIDE, TILE_SIDE), Image.Resampling.NEAREST)


def data_uri(kind: str, content: bytes) -> str:
    """Return content so that it lies in the page itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
