"""What a page is told of the items: their pictures and some facts, never what they are."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.dataset.split import Split
from lens_hpc.grading.grading_folder import Grading
from lens_hpc.grading.items import CANDIDATE, is_shown
from lens_hpc.grading.views import cutout_png, sheet_png, view_names

SCORES = ["score", "probability"]
POSITION = ["ra", "dec"]


class ShownItems:
    """The items of a grading, as pages and requests ask for them.

    Raises UserError for a dataset that cannot be opened, and later for a cutout that is damaged.
    """

    def __init__(self, grading: Grading) -> None:
        self.record = grading.record
        items = grading.items
        self._names = items["item"].tolist()
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._columns = items["columns"].tolist()

        is_hidden = (items["kind"] != CANDIDATE).to_numpy()
        self.has_scores = _are_shown(items[SCORES], is_hidden)
        has_positions = _are_shown(items[POSITION], is_hidden)
        shown = SCORES * self.has_scores + POSITION * has_positions
        # What may not be shown is unknown here.
        self._facts = items[shown].reindex(columns=SCORES + POSITION)

        # Where the cutouts lie.
        places = items.groupby(["dataset", "split"], sort=False)
        self._splits = [Split(str(dataset), str(name)) for (dataset, name), _ in places]
        self._split_numbers = places.ngroup().to_numpy()
        self._rows = items["row"].to_numpy()

        # All others are like those of the candidates.
        a_candidate = np.argmin(is_hidden)
        split = self._splits[self._split_numbers[a_candidate]]
        self.views = view_names(split.manifest)
        """Names of the views of each cutout."""

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, item: object) -> bool:
        return item in self._numbers

    def describe(self) -> dict[str, Any]:
        """Return what a page must know of all items."""
        return {
            "fingerprint": self.record.fingerprint,
            "name": self.record.name,
            "total": len(self),
            "bands": self.record.bands,
            "pixel_scale_arcsec": self.record.pixel_scale_arcsec,
            "shape": self.record.shape,
            "has_scores": self.has_scores,
            "views": self.views,
        }

    def facts(self, start: int, count: int) -> list[dict[str, Any]]:
        """Return name, scores, position and kept columns of some items, in their order."""
        stop = min(start + count, len(self))
        found = []
        for number, row in enumerate(self._facts[start:stop].itertuples(index=False), start):
            facts: dict[str, Any] = {"item": self._names[number]}
            for name, value in zip(self._facts, row, strict=True):
                facts[str(name)] = _as_json(value)
            facts["columns"] = json.loads(self._columns[number])
            found.append(facts)
        return found

    # ---- pictures ----

    def cutout(self, item: str, view: str, size: int) -> bytes:
        """Return an item's cutout as PNG whose longer side has `size` pixels."""
        [image] = self.images(self._numbers[item], 1)
        return cutout_png(image, self.record.bands, view, size)

    def sheet(self, start: int, count: int, view: str, size: int) -> bytes:
        """Return the cutouts of some items as one PNG, in rows of cells of `size` pixels."""
        return sheet_png(self.images(start, count), self.record.bands, view, size)

    def images(self, start: int, count: int) -> list[np.ndarray]:
        """Return the cutouts of some items, (bands, height, width) each, in their order."""
        stop = min(start + count, len(self))
        numbers = np.arange(start, stop)
        images: dict[int, np.ndarray] = {}

        for split_number, split in enumerate(self._splits):
            is_there = self._split_numbers[numbers] == split_number
            chosen = numbers[is_there]
            rows = self._rows[chosen]
            split.check_blocks(rows)
            taken = split.take("images", rows)
            images |= zip(chosen.tolist(), taken, strict=True)
            # Whoever goes through 100,000 candidates needs no more memory than at the first.
            split.forget()
        return [images[number] for number in numbers.tolist()]


def _are_shown(columns: pd.DataFrame, is_hidden: np.ndarray) -> bool:
    return all(is_shown(columns[name], is_hidden) for name in columns)


def _as_json(number: float) -> float | None:
    """Return a number as JSON has it."""
    return number if math.isfinite(number) else None
