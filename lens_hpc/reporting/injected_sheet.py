"""The contact sheet of an injection: host, arc and sum of some painted lenses."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lens_hpc import layout
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.reporting.composites import composite
from lens_hpc.reporting.pictures import ScaleBar, draw_bar, scale_bar

EXAMPLES = 12
EXAMPLES_A_ROW = 2
VIEWS = ("host", "arc", "sum")
CELL_INCHES = 1.35
HEADING_INCHES = 0.2


class Example(NamedTuple):
    """A host, and what was painted on it."""

    host: np.ndarray
    """(bands, height, width)."""
    painted: np.ndarray
    """(bands, height, width)."""
    title: str


class Sheet(NamedTuple):
    """What a contact sheet shows."""

    examples: list[Example]
    bands: tuple[str, ...]
    bar: ScaleBar


def choose_examples(dataset: Dataset, hosts: Dataset) -> Sheet:
    """Return painted lenses, from the lowest S/N of the arc to the highest.

    They stand evenly in the order of S/N, so that they show what is usual and both of its ends.
    """
    manifest = dataset.manifest
    truth = pd.read_parquet(dataset.path / layout.TRUTH)
    columns = [f"arc_snr_{band}" for band in manifest.bands]
    strongest = truth[columns].max(axis=1)
    faintest_first = strongest.argsort(kind="stable").to_numpy()
    places = np.linspace(0, len(truth) - 1, min(EXAMPLES, len(truth)))
    chosen = truth.iloc[faintest_first[places.round().astype(int)]]

    painted = _images_by_id(dataset, chosen["id"])
    unpainted = _images_by_id(hosts, chosen["host_id"])
    examples = []
    for number, row in chosen.iterrows():
        radius, snr = row["einstein_radius"], strongest[number]
        title = f"$\\theta_E$ {radius:.2f}″   S/N {snr:.3g}"
        examples.append(Example(unpainted[row["host_id"]], painted[row["id"]], title))
    return Sheet(examples, manifest.bands, scale_bar(manifest))


def _images_by_id(dataset: Dataset, ids: pd.Series) -> dict[str, np.ndarray]:
    """Return the cutouts of these ids, in whichever split they are."""
    images: dict[str, np.ndarray] = {}
    for split in dataset.values():
        rows = np.flatnonzero(np.isin(split.ids(), ids.to_numpy(dtype=str)))
        cutouts = split.take("images", rows)
        images.update(zip(split.ids(rows).tolist(), cutouts, strict=True))
    return images


def draw_sheet(sheet: Sheet) -> Figure:
    """Draw host, arc and sum of each example side by side, in the colours of the sum."""
    rows = -(-len(sheet.examples) // EXAMPLES_A_ROW)
    width = CELL_INCHES * EXAMPLES_A_ROW * len(VIEWS)
    # The first row has the headings, too.
    heights = [CELL_INCHES + HEADING_INCHES, *[CELL_INCHES] * (rows - 1)]
    figure = Figure((width, sum(heights)), layout="constrained")
    parts = figure.subfigures(rows, EXAMPLES_A_ROW, squeeze=False, height_ratios=heights).flat

    # The last row may have a part without an example.
    for number, (part, example) in enumerate(zip(parts, sheet.examples, strict=False)):
        is_top = number < EXAMPLES_A_ROW
        _draw_example(part.subplots(1, len(VIEWS)), example, sheet, is_top)
    return figure


def _draw_example(cells: Any, example: Example, sheet: Sheet, is_top: bool) -> None:
    pictures = (
        composite(example.host, sheet.bands, scale_of=example.painted),
        _picture_of_arc(example, sheet.bands),
        composite(example.painted, sheet.bands),
    )
    for axes, picture, name in zip(cells, pictures, VIEWS, strict=True):
        axes.imshow(picture, origin="lower", interpolation="nearest")
        axes.set_axis_off()
        if is_top:
            axes.set_title(name, fontsize=10)
    draw_bar(cells[0], sheet.bar)
    # Dark edges, for an arc may lie behind.
    edge = [withStroke(linewidth=2, foreground="black")]
    text: dict[str, Any] = {"color": "white", "fontsize": 7, "va": "top", "path_effects": edge}
    cells[-1].text(0.05, 0.95, example.title, transform=cells[-1].transAxes, **text)


def _picture_of_arc(example: Example, bands: tuple[str, ...]) -> np.ndarray:
    """Return what was added to the host, as bright as it is in the sum."""
    if example.painted.dtype == np.uint8:
        return composite(example.painted - np.minimum(example.host, example.painted), bands)

    added = example.painted.astype(np.float64) - example.host
    sky = np.median(example.painted, axis=(1, 2), keepdims=True)
    return composite(added + sky, bands, scale_of=example.painted)
