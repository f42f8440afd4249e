"""A survey whose cutouts lie in image files or stacks, scored in parts of the catalogue."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from lens_hpc.dataset.positions import find_position_columns, positions_of
from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue import Catalogue, read_catalogue
from lens_hpc.packing.plan import Plan, Shard, find_good_rows, open_cutouts
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.watching import CutoutReaders
from lens_hpc.predicting.object_table import object_table
from lens_hpc.predicting.survey import PartCutouts, PartRows, SurveyPart, kind_of_recipe
from lens_hpc.resources import usable_cpus

ROWS_OF_A_PART = 4096
MOST_READERS = 16
PREFIX = "rows"


class ImageSurvey:
    """The rows of a catalogue, each with images of its own or its place in a stack.

    Raises UserError for what is wrong with the recipe or the catalogue as a whole, such as an id
    that stands twice, and where no image can be read.
    """

    def __init__(self, recipe: PackSettings, source: Path) -> None:
        # A row without a usable cutout gets a reason, whatever the recipe says of packing.
        settings = recipe.model_copy(update={"source": source, "on_bad": "skip"})
        catalogue = read_catalogue(settings, source)
        _refuse_repeated(settings, catalogue)

        good_rows = find_good_rows(settings, catalogue)
        self._plan = Plan(
            settings=settings,
            catalogue=catalogue,
            cutouts=open_cutouts(settings, catalogue, good_rows),
            shards=_cut_into_parts(len(catalogue)),
        )
        facts = self._plan.facts
        self.kind = kind_of_recipe(settings, (facts.height, facts.width))
        self.parts = [self._part(shard) for shard in self._plan.shards]

    def _part(self, shard: Shard) -> SurveyPart:
        """Return what some rows are as a part; it is identified as a shard that is to be packed."""
        digest = hashlib.sha256(self._plan.fingerprint(shard).encode())
        kept = self._plan.catalogue.kept.iloc[shard.rows]
        if len(kept.columns):  # without any, pandas 2 fails
            digest.update(pd.util.hash_pandas_object(kept, index=False).to_numpy().tobytes())

        count = len(shard.rows)
        size = count * self._plan.cutouts.row_bytes
        return SurveyPart(f"{PREFIX}-{shard.rows[0]:08}", count, size, digest.hexdigest())

    def rows(self, part: int) -> PartRows:
        """Return some rows of the catalogue."""
        catalogue = self._plan.catalogue
        rows = self._plan.shards[part].rows
        columns = catalogue.kept.iloc[rows]
        kept = pa.Table.from_pandas(columns, preserve_index=False)
        table = object_table(
            ids=catalogue.ids[rows],
            positions=positions_of(columns),
            tile=None,
            kept=kept,
            held=find_position_columns(columns.columns) or (),
        )

        reasons = {}
        for number, row in enumerate(rows.tolist()):
            if row in catalogue.bad:
                reasons[number] = catalogue.bad[row]
        return PartRows(table, catalogue.features[rows], reasons)

    def batches(
        self, part: int, rows: PartRows, batch_size: int, reasons: dict[int, str]
    ) -> Iterator[PartCutouts]:
        """Yield the cutouts of some rows of the catalogue, read in processes of their own.

        Raises UserError where a file ends the process that reads it.
        """
        is_readable = np.ones(len(rows.table), dtype=bool)
        is_readable[list(rows.reasons)] = False
        numbers = np.flatnonzero(is_readable)
        cuts = range(batch_size, len(numbers), batch_size)
        groups = np.split(numbers, cuts)

        in_catalogue = self._plan.shards[part].rows
        wanted = [in_catalogue[group].tolist() for group in groups]
        for group, found in zip(groups, self._readers.read(wanted), strict=True):
            images = {}
            for number, image in zip(group.tolist(), found, strict=True):
                if isinstance(image, str):
                    reasons[number] = image
                else:
                    images[number] = image

            if images:
                pixels = np.stack(list(images.values()))
                yield PartCutouts(np.array(list(images)), pixels, np.zeros(len(images)))

    @cached_property
    def _readers(self) -> CutoutReaders:
        return CutoutReaders(self._plan.cutouts, min(usable_cpus(), MOST_READERS))

    def cutouts(self, part: int, rows: np.ndarray) -> np.ndarray:
        """Return the cutouts of some rows of a part, all of them usable."""
        in_catalogue = self._plan.shards[part].rows[rows]
        return np.stack([self._plan.cutouts[row] for row in in_catalogue.tolist()])


def _refuse_repeated(settings: PackSettings, catalogue: Catalogue) -> None:
    """Raise UserError for an id that stands twice: nobody could tell which score is whose."""
    ids = catalogue.ids
    is_repeated = pd.Series(ids).duplicated() & (ids != "")
    if not is_repeated.any():
        return

    repeated = ids[is_repeated][0]
    first, second = np.flatnonzero(ids == repeated)[:2]
    first_row = catalogue.table_rows[first]
    second_row = catalogue.table_rows[second]
    raise UserError(
        f"{settings.catalogue or settings.source}: the id {str(repeated)!r} stands in row "
        f"{first_row:,} and in row {second_row:,}, counted from 0; each object needs an id of its "
        "own: take one row out, or make columns.id of several columns, as in {field}_{number}"
    )


def _cut_into_parts(count: int) -> list[Shard]:
    cuts = range(ROWS_OF_A_PART, count, ROWS_OF_A_PART)
    parts = np.split(np.arange(count), cuts)
    return [Shard(PREFIX, number, rows) for number, rows in enumerate(parts)]
