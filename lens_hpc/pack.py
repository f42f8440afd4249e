"""pack: a catalogue and its images become HDF5 shards and a manifest.

1. The settings and the catalogue are checked as a whole, before anything is written.
2. Every row gets its split; the rows of a split are shuffled over the whole split.
3. Shards are written block by block into a folder aside, the manifest last.
4. The folder appears under its name when it is complete.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lens_hpc import UserError, __version__, config, files, logs
from lens_hpc.data import catalogue, images, shards, splits
from lens_hpc.data.catalogue import Catalogue

MIB = 1 << 20


def run(recipe_file: Path, overrides: list[str]) -> None:
    """Pack the recipe's catalogue and images in source= into the new dataset output=."""
    settings = config.load(config.Pack, recipe_file, overrides)
    rows = catalogue.read(settings, settings.source)
    order = split_rows(settings, rows)
    packer = Packer(settings, rows)
    with files.whole_folder(settings.output) as folder:
        packer.progress = logs.Progress(len(rows.ids), "pack", "rows")
        records = {name: packer.write_split(folder, name, order[name]) for name in order}
        packer.progress.close()
        files.write_text(folder / "manifest.json", packer.manifest(records, order).model_dump_json(indent=1) + "\n")
    print(summary(settings.output, records))


def split_rows(settings: config.Pack, rows: Catalogue) -> dict[str, np.ndarray]:
    """Row numbers of each split, shuffled over the whole split."""
    if rows.splits is None:
        names = splits.draw(rows.labels, rows.groups, settings.splits, settings.seed)
        wanted = list(settings.splits)
    else:
        names, wanted = rows.splits, sorted(set(rows.splits.tolist()))
    rng = np.random.default_rng([settings.seed, 1])
    order = {name: rng.permutation(np.flatnonzero(names == name)) for name in wanted}
    for name, members in order.items():
        classes = set(rows.labels[members])
        if not len(members):
            raise UserError(
                f"no row is left for the split {name!r}; use fewer splits, larger fractions or smaller groups"
            )
        if settings.columns.label and not {0, 1} <= classes:
            logs.logger.warning("split %s has no %s", name, " and no ".join(_absent(classes)))
    return order


def _absent(classes: set[int]) -> list[str]:
    return [word for label, word in {1: "lenses", 0: "non-lenses"}.items() if label not in classes]


class Packer:
    """Writes shards, and gathers the statistics of training on the way."""

    progress: logs.Progress

    def __init__(self, settings: config.Pack, rows: Catalogue) -> None:
        self.settings, self.rows = settings, rows
        self.ids = shards.encode_ids(rows.ids)
        self.shape = self._first_shape()
        image_bytes = int(np.prod(self.shape)) * np.dtype(settings.dtype).itemsize
        blocks = max(settings.shard_mib * MIB // (image_bytes * shards.BLOCK_ROWS), 1)
        self.rows_a_shard = int(blocks) * shards.BLOCK_ROWS
        self.train_image_max = -np.inf

    def write_split(self, folder: Path, name: str, order: np.ndarray) -> shards.SplitRecord:
        """Write the rows of one split, in that order."""
        (folder / name).mkdir()
        records = []
        for number, start in enumerate(range(0, len(order), self.rows_a_shard)):
            members = order[start : start + self.rows_a_shard]
            file = folder / name / f"shard-{number:05d}.h5"
            with files.whole_file(file) as partial:
                checksums = shards.write_shard(
                    partial, len(members), self._blocks(name, members), self._attributes(name)
                )
            records.append(shards.describe_shard(folder, file, len(members), checksums))
        labels = self.rows.labels[order]
        return shards.SplitRecord(
            rows=len(order),
            lenses=int((labels == 1).sum()),
            non_lenses=int((labels == 0).sum()),
            unlabelled=int((labels == -1).sum()),
            shards=tuple(records),
        )

    def manifest(self, records: dict[str, shards.SplitRecord], order: dict[str, np.ndarray]) -> shards.Manifest:
        """What the dataset holds, and the recipe that made it."""
        settings = self.settings
        statistics = self._statistics(order["train"]) if "train" in order else None
        return shards.Manifest(
            schema_version=shards.SCHEMA_VERSION,
            name=settings.name,
            bands=settings.bands,
            height=self.shape[1],
            width=self.shape[2],
            dtype=settings.dtype,
            pixel_scale_arcsec=settings.pixel_scale,
            units=settings.units,
            features=settings.columns.features,
            seed=settings.seed,
            block_rows=shards.BLOCK_ROWS,
            statistics=statistics,
            splits=records,
            recipe=settings.model_dump(mode="json", exclude={"source", "output"}),
            created_by=f"lens_hpc {__version__}",
        )

    def _blocks(self, split: str, members: np.ndarray) -> Iterator[shards.Rows]:
        for start in range(0, len(members), shards.BLOCK_ROWS):
            part = members[start : start + shards.BLOCK_ROWS]
            pixels = np.stack([self._image(row) for row in part])
            if split == "train":
                self.train_image_max = max(self.train_image_max, float(pixels.max()))
            yield shards.Rows(pixels, self.rows.features[part], self.rows.labels[part], self.ids[part])
            self.progress.update(len(part))

    def _image(self, row: int) -> np.ndarray:
        path = self.settings.source / self.rows.paths[row]
        image = images.read(path)
        if image.shape != self.shape:
            raise UserError(f"{path}: has the shape {image.shape}, others have {self.shape} (bands, height, width)")
        return images.cast(image, self.settings.dtype, path)

    def _first_shape(self) -> tuple[int, ...]:
        path = self.settings.source / self.rows.paths[0]
        shape = images.read(path).shape
        if shape[0] != len(self.settings.bands):
            raise UserError(
                f"{path}: has {shape[0]} planes, the recipe names the bands {', '.join(self.settings.bands)}"
            )
        return shape

    def _attributes(self, split: str) -> dict[str, object]:
        return {
            "schema_version": shards.SCHEMA_VERSION,
            "name": self.settings.name,
            "split": split,
            "bands": list(self.settings.bands),
            "features": list(self.settings.columns.features),
            "pixel_scale_arcsec": self.settings.pixel_scale,
            "units": self.settings.units,
        }

    def _statistics(self, train: np.ndarray) -> shards.Statistics:
        features = self.rows.features[train]
        empty = [
            name
            for name, column in zip(self.settings.columns.features, features.T, strict=True)
            if np.isnan(column).all()
        ]
        if empty:
            raise UserError(f"{', '.join(empty)}: missing in every training row; take it out of columns.features")
        return shards.Statistics(
            feature_min=tuple(np.nanmin(features, axis=0).tolist()),
            feature_max=tuple(np.nanmax(features, axis=0).tolist()),
            feature_median=tuple(np.nanmedian(features, axis=0).tolist()),
            image_max=self.train_image_max,
        )


def summary(output: Path, records: dict[str, shards.SplitRecord]) -> str:
    """What was packed, a line a split."""
    lines = [str(output)]
    for name, record in records.items():
        megabytes = sum(shard.bytes for shard in record.shards) / 1e6
        classes = f"{record.lenses:,} lenses, {record.non_lenses:,} non-lenses, {record.unlabelled:,} unlabelled"
        lines.append(f"  {name:<6} {record.rows:>9,} rows: {classes}; {len(record.shards)} shards, {megabytes:,.1f} MB")
    return "\n".join(lines)
