"""The recipe: how a survey's catalogue and images are laid out on disk, in data, never in code."""

import os
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lens_hpc.settings import FilePath, Fraction, Probability, Settings, SplitName
from lens_hpc.workers import usable_cpus

PathPattern = str | tuple[str, ...]
"""A path with {column} and {band} in it, or alternatives of one."""

DRAWN_SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


class Columns(Settings):
    """Which catalogue column is what; without a catalogue, the fields of `images` are columns."""

    id: str = "id"
    """A column with a unique name for each row, or a template of columns: "{field}_{number}"."""
    label: str | None = "is_lens"
    """A column (1 lens, 0 not, empty unlabelled), or a condition on columns:
    kind == 'lens' & snr > 5; null: no labels."""
    features: tuple[str, ...] = ()
    """Columns of numbers that the model may see; an empty cell is a missing value."""
    group: str | None = None
    """Column of groups; the rows of a group always stay in one split."""
    split: str | None = None
    """Column with the split that a row belongs to; null: splits are drawn."""
    split_names: dict[str, SplitName] = Field(default={})
    """Value in the split column: name of the split."""

    @model_validator(mode="after")
    def _check_features(self) -> "Columns":
        others = {self.id, self.label, self.group, self.split}
        no_features = [name for name in self.features if name in others]
        if no_features:
            given = ", ".join(no_features)
            raise ValueError(f"features must not hold the id, label, group or split: got {given}")

        if len(set(self.features)) < len(self.features):
            given = ", ".join(self.features)
            raise ValueError(f"features must differ from each other: got {given}")
        return self


class BadPixels(Settings):
    """What to do about pixels that hold no measurement: NaN, infinite, or equal to `mask`."""

    mask: float | None = None
    """A value that marks a masked pixel."""
    most: Probability = 0.0
    """Fraction of such pixels up to which a cutout is kept; above it, the row is bad."""
    fill: Literal["zero", "median"] = "median"
    """What replaces them in a cutout that is kept: zero, or the median of the good pixels in the
    same band."""


class Recipe(Settings):
    """A layout of catalogue and images on disk, in data: the recipe file of `lens-hpc pack`."""

    name: str
    """Name of the dataset."""
    catalogue: FilePath | None = None
    """CSV, Parquet, FITS table or VOTable in the source folder, also gzipped; null: the image
    files that are found are the rows."""
    columns: Columns = Columns()
    """Which catalogue column is what."""
    images: PathPattern | dict[str, PathPattern] | None = None
    """Path of a row's image in the source folder. {column} stands for its value, {band} for each
    band; a list holds alternatives, a mapping gives each band its own path. Without a catalogue,
    {name:regular expression} is allowed."""
    format: str | None = None
    """Format of the image files: fits | npy | npz | picture, or mypackage.module.read_image with
    code=[mypackage]; null: by the ending of each file."""
    stack: FilePath | None = None
    """One .npy, .npz or HDF5 array with all cutouts in the order of the catalogue, instead of
    `images`."""
    stack_axes: Literal["NBHW", "NHWB", "NHW"] = "NBHW"
    """Order of the stack's axes: number, band, height, width."""
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the bands, in the order of the image planes."""
    hdu: int | str | None = None
    """Number or name of the FITS HDU with the image; null: the first with one, in an image or in
    a table's cell."""
    key: str | None = None
    """Name of the array in an .npz or HDF5 file."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width to which every cutout is cropped or padded with zeros around its centre;
    null: all have the same size already."""
    pixel_scale: PositiveFloat | dict[str, PositiveFloat]
    """Arcseconds per pixel, or a mapping from band to that. Where bands differ, all are resampled
    to the finest grid, and their flux is conserved."""
    units: str
    """Unit of the pixel values."""
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    """Type of the stored pixels; a row with a value that does not fit it is bad."""
    compression: Literal["none", "lzf", "gzip"] = "none"
    """Lossless filter of the images; none keeps them contiguous, so that readers can map them."""
    bad_pixels: BadPixels = BadPixels()
    """What to do about pixels that hold no measurement."""
    splits: dict[SplitName, Fraction] = Field(default=DRAWN_SPLITS)
    """Fractions of the rows, drawn by label and by whole groups when there is no split column."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the rows in train to draw as val, where the split column has none."""
    seed: NonNegativeInt = 0
    """Seed of the drawn splits and of the shuffle of their rows."""

    @model_validator(mode="after")
    def _check_layout(self) -> "Recipe":
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("bands must differ from each other")
        if (self.images is None) == (self.stack is None):
            raise ValueError("give either images or stack")
        if self.stack is not None:
            self._check_stack()

        self._check_bands("images", self.images)
        self._check_bands("pixel_scale", self.pixel_scale)
        if self.columns.split is None:
            self._check_splits()
        return self

    def _check_stack(self) -> None:
        if self.catalogue is None:
            raise ValueError("a stack needs a catalogue, in the same row order")
        if self.format is not None:
            raise ValueError("format is for images; a stack is read by its ending")

    def _check_bands(self, setting: str, value: object) -> None:
        if not isinstance(value, dict):
            return
        if set(value) != set(self.bands):
            expected = ", ".join(self.bands)
            given = ", ".join(value)
            raise ValueError(f"{setting} must name the bands {expected}: got {given}")

    def _check_splits(self) -> None:
        total = sum(self.splits.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"splits must add up to 1: got {total:g} from {self.splits}")
        if "train" not in self.splits and self.columns.label is not None:
            raise ValueError("splits must have one named train")


def _srun_variable(name: str, default: int) -> int:
    """Return a number that srun gives to each task of a step; a batch script is no such task."""
    if "SLURM_STEP_NUM_TASKS" not in os.environ:
        return default
    return int(os.environ[name])


class PackSettings(Recipe):
    """A recipe, where its files are, and how they are packed."""

    not_in_files: ClassVar[frozenset[str]] = frozenset({"code"})

    source: FilePath
    """Folder that holds the catalogue and the images."""
    output: FilePath
    """Folder of the new dataset."""
    on_bad: Literal["error", "skip"] = "error"
    """What a bad row does: stop the packing, or be left out and listed in rejected.csv."""
    shard_mib: PositiveInt = 256
    """Largest size of a shard's images, MiB."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes of this task."""
    task: NonNegativeInt = Field(default_factory=lambda: _srun_variable("SLURM_PROCID", 0))
    """Number of this task among `tasks`, which share the shards; srun tells both."""
    tasks: PositiveInt = Field(default_factory=lambda: _srun_variable("SLURM_STEP_NUM_TASKS", 1))
    """Number of tasks that pack into the same output."""
    dry_run: bool = False
    """Only say what would be packed."""
    code: tuple[str, ...] = ()
    """Packages of your own that format may name; nothing else is imported, and a recipe file
    cannot set this."""

    @model_validator(mode="after")
    def _check_task(self) -> "PackSettings":
        if self.task >= self.tasks:
            raise ValueError(f"task must be less than tasks: got {self.task} of {self.tasks}")
        return self
