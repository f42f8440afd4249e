"""Candidates for volunteers: pictures and a manifest, as Zooniverse's uploader takes them.

panoptes subject-set upload-subjects NUMBER VETTED/zooniverse.csv
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc import files
from lens_hpc.grading.views import cutout_png
from lens_hpc.layout import ZOONIVERSE
from lens_hpc.texts import csv_text

VIEW = "asinh"
SIDE_PIXELS = 512
HIDDEN = "#"
"""Volunteers are not shown what stands in a column whose name begins so."""
TOLD = ("id", "ra", "dec", "grade", "mean_grade", "score", "probability", "known_name")
"""What comes back with the volunteers' answers."""


def write_pictures(
    folder: Path, table: pd.DataFrame, images: np.ndarray, bands: tuple[str, ...]
) -> None:
    """Write the pictures of some rows of the vetted list; `images` (n, bands, height, width)."""
    for item, image in zip(table["item"], images, strict=True):
        picture = folder / picture_name(item)
        picture.write_bytes(cutout_png(image, bands, VIEW, SIDE_PIXELS))


def picture_name(item: str) -> str:
    """Name of a picture, relative to the manifest; volunteers may see it, so it tells nothing."""
    return f"{ZOONIVERSE}/{item}.png"


def write_manifest(folder: Path, table: pd.DataFrame) -> None:
    """Write folder/zooniverse.csv, with a row for each row of the vetted list.

    Volunteers see the picture alone: grades and scores would tell them what to find.
    """
    told = table[list(TOLD)].astype(object)
    cells = told.where(told.notna(), None)
    rows = [
        [picture_name(item), *values]
        for item, values in zip(table["item"], cells.to_numpy().tolist(), strict=True)
    ]
    header = ["image", *(f"{HIDDEN}{name}" for name in TOLD)]
    files.write_text(folder / f"{ZOONIVERSE}.csv", csv_text([header, *rows]))
