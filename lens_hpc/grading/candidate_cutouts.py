"""The cutouts of candidates, as long as they are those that were graded."""

import numpy as np
import pandas as pd

from lens_hpc import layout
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.grading.grading_folder import Grading
from lens_hpc.grading.items import CANDIDATE


def open_candidates(grading: Grading) -> Split:
    """Open the candidates of a grading. Raises UserError where they are others than were graded."""
    path = grading.record.datasets[CANDIDATE].path
    split = Split(path, layout.CANDIDATES)
    items = grading.items
    graded = items[items["kind"] == CANDIDATE]

    rows = graded["row"].to_numpy()
    are_there = len(rows) == 0 or rows.max() < len(split)
    if not are_there or (split.ids(rows) != graded["id"].to_numpy(dtype=str)).any():
        raise UserError(
            f"{path}: has others than the candidates that were graded in {grading.folder}; put "
            "those back, or grade these into a new folder"
        )
    return split


def read_cutouts(split: Split, table: pd.DataFrame) -> np.ndarray:
    """Return the cutouts of rows of a vetted list, (n, bands, height, width).

    Raises UserError for a block that is damaged.
    """
    rows = table["row"].to_numpy()
    split.check_blocks(rows)
    return split.take("images", rows)
