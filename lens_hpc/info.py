"""info: what is inside a dataset, at a glance."""

from pathlib import Path

import numpy as np

from lens_hpc import config, files
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import Manifest, read_manifest

COLUMNS_OF_CUTOUTS = 8


def run(dataset: Path, overrides: list[str]) -> None:
    """Print the contents of a dataset; draw a contact sheet when asked to."""
    settings = config.load(config.Info, overrides=overrides)
    manifest = read_manifest(dataset)
    splits = [Split(dataset, name) for name in manifest.splits]
    print("\n".join([*describe(dataset, manifest), *describe_splits(splits), *describe_features(manifest, splits)]))
    if settings.figure:
        split = Split(dataset, settings.split or splits[0].name)
        draw_contact_sheet(settings.figure, split, settings.seed)
        print(f"cutouts of {split.name} are in {settings.figure}")


def describe(dataset: Path, manifest: Manifest) -> list[str]:
    """Name, bands, pixels and origin."""
    recipe = manifest.recipe
    origin = recipe["catalogue"] or recipe["images"]
    lines = [
        f"{dataset}: {manifest.name}",
        f"  bands     {', '.join(manifest.bands)}; {manifest.height} x {manifest.width} px of "
        f"{manifest.pixel_scale_arcsec:g} arcsec; {manifest.dtype}; {manifest.units}",
        f"  origin    {origin}, seed {manifest.seed}, {manifest.created_by}",
    ]
    if manifest.resampled:
        lines.append(f"  resampled {', '.join(manifest.resampled)}, to the grid of the finest band, flux conserved")
    if manifest.rejected:
        lines.append(f"  rejected  {manifest.rejected:,} rows: see rejected.csv")
    if manifest.duplicates_across_splits:
        lines.append(f"  leak      {manifest.duplicates_across_splits:,} cutouts are identical to one in another split")
    return lines


def describe_splits(splits: list[Split]) -> list[str]:
    """A line a split."""
    lines = [f"\n  {'split':<10}{'rows':>12}{'lenses':>12}{'non-lenses':>12}{'unlabelled':>12}{'shards':>8}{'MB':>12}"]
    for split in splits:
        record = split.record
        counts = (record.rows, record.lenses, record.non_lenses, record.unlabelled)
        size = sum(shard.bytes for shard in record.shards) / 1e6
        numbers = "".join(f"{count:>12,}" for count in counts)
        lines.append(f"  {split.name:<10}{numbers}{len(record.shards):>8,}{size:>12,.1f}")
    return lines


def describe_features(manifest: Manifest, splits: list[Split]) -> list[str]:
    """Training's range of each feature, and how many values are missing over all splits."""
    statistics = manifest.statistics
    if not manifest.features or statistics is None:
        return ["\n  no features"] * (not manifest.features)
    missing = sum(np.isnan(split.take("features", np.arange(len(split)))).sum(axis=0) for split in splits)
    lines = [f"\n  {'feature':<20}{'min':>12}{'median':>12}{'max':>12}{'missing':>12}"]
    columns = (statistics.feature_min, statistics.feature_median, statistics.feature_max)
    for name, *values, absent in zip(manifest.features, *columns, np.atleast_1d(missing), strict=True):
        lines.append(f"  {name:<20}" + "".join(f"{value:>12.5g}" for value in values) + f"{absent:>12,}")
    return lines


def draw_contact_sheet(path: Path, split: Split, seed: int) -> None:
    """Some random lenses and non-lenses of a split, with their ids."""
    from lens_hpc.analysis import cutouts

    rng = np.random.default_rng(seed)
    labels = split.take("labels", np.arange(len(split)))
    sheets = {}
    for title, label in (("lenses", 1), ("non-lenses", 0), ("unlabelled", -1)):
        members = np.flatnonzero(labels == label)
        chosen = rng.choice(members, min(len(members), 2 * COLUMNS_OF_CUTOUTS), replace=False)
        if len(chosen):
            sheets[title] = (split.take("images", chosen), split.ids(chosen).tolist())
    with files.whole_file(path) as partial:
        cutouts.draw_cutouts(partial, sheets, split.manifest.bands, COLUMNS_OF_CUTOUTS)
