"""info: what is inside a dataset, at a glance."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import NonNegativeInt, field_validator

from lens_hpc import files, layout
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.manifest import Manifest, SplitRecord
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.settings import FilePath
from lens_hpc.settings import Settings as BaseSettings

TARGET = "DATASET"
TARGET_SETTING = "dataset"
EXTRA = "train"
SUMMARY = (
    "Say what is in a packed dataset: splits, classes, features, bands, where it came from; "
    "draw some cutouts."
)
EXAMPLE = "lens-hpc info data/demo/shards figure=cutouts.png"

CUTOUTS_PER_LINE = 8
LINES_PER_CLASS = 2


class Settings(BaseSettings):
    """Settings of `lens-hpc info`."""

    dataset: FilePath
    """Packed dataset to look into."""
    figure: FilePath | None = None
    """PNG file to draw a contact sheet of random lenses and non-lenses into."""
    split: str | None = None
    """Split that the figure shows; null: the first."""
    seed: NonNegativeInt = 0
    """Seed of the choice of cutouts."""

    @field_validator("figure")
    @classmethod
    def _can_be_drawn(cls, figure: Path | None) -> Path | None:
        if figure is None:
            return None
        if figure.suffix.lower() != ".png":
            raise ValueError("must end in .png: the figure is a PNG file")
        if not figure.parent.is_dir():
            raise ValueError(f"there is no folder {figure.parent}; make it first")
        if figure.exists() and not figure.is_file():
            raise ValueError("is no file that could be replaced; name another")
        return figure


class DatasetContents(NamedTuple):
    """What is inside a dataset."""

    dataset: Path
    manifest: Manifest
    missing: tuple[int, ...]
    """For each feature, how many values are missing in all splits together."""
    figure: Path | None
    figure_split: str
    """Split that the figure shows."""

    def __repr__(self) -> str:
        return text(self)


def run(settings: Settings) -> DatasetContents:
    """Look into a dataset, and draw a contact sheet if its name is given."""
    dataset = Dataset(settings.dataset)
    missing = _count_missing(dataset)

    split = settings.split or next(iter(dataset))
    if settings.figure:
        _draw_contact_sheet(settings.figure, dataset[split], settings.seed)
    return DatasetContents(dataset.path, dataset.manifest, missing, settings.figure, split)


def text(contents: DatasetContents) -> str:
    """Show name, origin, splits and features."""
    manifest = contents.manifest
    lines = [
        f"{contents.dataset}: {manifest.name}",
        *_general_lines(manifest),
        "",
        *_split_lines(manifest),
        *_feature_lines(manifest, contents.missing),
    ]
    if contents.figure:
        lines.append(f"cutouts of {contents.figure_split} are in {contents.figure}")
    return "\n".join(lines)


# ---- the text ----


def _general_lines(manifest: Manifest) -> list[str]:
    size = f"{manifest.height} x {manifest.width} px of {manifest.pixel_scale_arcsec:g} arcsec"
    lines = [
        f"  bands     {', '.join(manifest.bands)}; {size}; {manifest.dtype}; {manifest.units}",
        f"  origin    {_origin(manifest)}, seed {manifest.seed}, {manifest.created_by}",
    ]

    if manifest.resampled:
        bands = ", ".join(manifest.resampled)
        lines.append(f"  resampled {bands}, to the grid of the finest band, flux conserved")
    if manifest.rejected:
        lines.append(f"  rejected  {manifest.rejected:,} rows: see {layout.REJECTED}")
    duplicates = manifest.duplicates_across_splits
    if duplicates:
        lines.append(f"  leak      {duplicates:,} cutouts are identical to one in another split")
    return lines


def _origin(manifest: Manifest) -> str:
    recipe = manifest.recipe
    if _is_ranked(manifest):
        return f"the highest scores of {recipe[layout.CANDIDATES].get('survey', 'a survey')}"
    return next(filter(None, map(recipe.get, ("catalogue", "images", "stack"))), "unknown")


def _is_ranked(manifest: Manifest) -> bool:
    """Say whether the rows are candidates of a prediction, the best first."""
    return isinstance(manifest.recipe.get(layout.CANDIDATES), dict)


def _split_lines(manifest: Manifest) -> list[str]:
    counts = f"{'rows':>12}{'lenses':>12}{'non-lenses':>12}{'unlabelled':>12}"
    lines = [f"  {'split':<10}{counts}{'shards':>8}{'MB':>12}"]
    for name, record in manifest.splits.items():
        lines.append(_split_line(name, record))
    return lines


def _split_line(name: str, record: SplitRecord) -> str:
    megabytes = sum(shard.bytes for shard in record.shards) / 1e6
    counts = (record.rows, record.lenses, record.non_lenses, record.unlabelled)
    columns = "".join(f"{count:>12,}" for count in counts)
    return f"  {name:<10}{columns}{len(record.shards):>8,}{megabytes:>12,.1f}"


def _feature_lines(manifest: Manifest, missing: tuple[int, ...]) -> list[str]:
    if not manifest.features:
        return ["", "  no features"]
    statistics = manifest.statistics
    if statistics is None:
        return []

    lines = ["", f"  {'feature':<20}{'min':>12}{'median':>12}{'max':>12}{'missing':>12}"]
    for index, name in enumerate(manifest.features):
        least = statistics.feature_min[index]
        median = statistics.feature_median[index]
        greatest = statistics.feature_max[index]
        values = f"{least:>12.5g}{median:>12.5g}{greatest:>12.5g}"
        lines.append(f"  {name:<20}{values}{missing[index]:>12,}")
    return lines


# ---- what is read ----


def _count_missing(dataset: Dataset) -> tuple[int, ...]:
    missing = np.zeros(len(dataset.manifest.features), dtype=int)
    for split in dataset.values():
        features = split.take("features", np.arange(len(split)))
        missing += np.isnan(features).sum(axis=0)
    return tuple(missing.tolist())


def _draw_contact_sheet(path: Path, split: Split, seed: int) -> None:
    """Draw some cutouts of a split: random ones of each class, or the best of candidates."""
    from lens_hpc.reporting import pictures  # imports Matplotlib

    if not len(split):
        raise UserError(f"{split.dataset}: {split.name} has no rows to draw; name another split")

    sheets = {}
    for title, chosen in _choose_rows(split, seed).items():
        sheets[title] = (split.take("images", chosen), _captions(split, chosen))

    manifest = split.manifest
    bar = pictures.scale_bar(manifest)
    with files.whole_file(path) as partial:
        pictures.draw_cutouts(partial, sheets, manifest.bands, bar, CUTOUTS_PER_LINE)


def _choose_rows(split: Split, seed: int) -> dict[str, np.ndarray]:
    """Return the numbers of the rows to draw, by the title of their sheet."""
    most = LINES_PER_CLASS * CUTOUTS_PER_LINE
    if _is_ranked(split.manifest):
        return {"candidates, the best first": np.arange(min(len(split), most))}

    rng = np.random.default_rng(seed)
    labels = split.take("labels", np.arange(len(split)))
    chosen = {}
    for title, label in (("lenses", 1), ("non-lenses", 0), ("unlabelled", -1)):
        members = np.flatnonzero(labels == label)
        # A class without cutouts gets no title.
        if len(members):
            chosen[title] = rng.choice(members, min(len(members), most), replace=False)
    return chosen


def _captions(split: Split, rows: np.ndarray) -> list[str]:
    """Return the ids of rows, and the probabilities of candidates."""
    ids = split.ids(rows).tolist()
    kept = split.kept_columns()
    if not _is_ranked(split.manifest) or "probability" not in kept:
        return ids
    probabilities = kept["probability"].iloc[rows]
    return [f"{name}  {value:.3f}" for name, value in zip(ids, probabilities, strict=True)]
