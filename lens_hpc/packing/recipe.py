"""The recipe: how a survey's catalogue and images are laid out on disk, in data, never in code."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from lens_hpc.dataset.manifest import DatasetName
from lens_hpc.packing.links import first_outside
from lens_hpc.packing.mosaic_settings import Mosaics
from lens_hpc.resources import usable_cpus
from lens_hpc.settings import FilePath, Fraction, Probability, Settings, SplitName

PathPattern = str | tuple[str, ...]
"""A path with {column} and {band} in it, or alternatives of one."""

MASK_CONDITION = r"^((<=|>=|<|>|==|!=) *[-+]?\d+\.?\d*([eE][-+]?\d+)?|& *\d+)$"
"""A comparison with a number, or bits."""

PartSetting = int | str | dict[str, int | str] | None
"""A part of a file: one for all bands, a template with {band} and {column}, or one for each."""

StackFiles = FilePath | tuple[FilePath, ...]
"""A file of a stack, or files that follow each other."""

MOST_BANDS = 1000
MOST_FEATURES = 10_000
"""The manifest names them all."""

DRAWN_SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


class Columns(Settings):
    """Which catalogue column is what; without a catalogue, the fields of `images` are columns."""

    id: str = "id"
    """A column with a unique name for each row, or a template of columns: "{field}_{number}"."""
    label: str | None = "is_lens"
    """A column (1 lens, 0 not, empty unlabelled), or a condition on columns:
    kind == 'lens' & snr > 5; null: no labels."""
    features: Annotated[tuple[str, ...], Field(max_length=MOST_FEATURES)] = ()
    """Columns of numbers that the model may see; an empty cell is a missing value."""
    target: str | None = None
    """Column of soft labels from 0 to 1, for training; an empty cell: the label."""
    weight: str | None = None
    """Column with the weight of each row in the loss, not negative; an empty cell: 1."""
    keep: tuple[str, ...] = ()
    """Columns that are carried beside the data, such as positions and classes: never shown to the
    model."""
    group: str | None = None
    """Column of groups; the rows of a group always stay in one split."""
    split: str | None = None
    """Column with the split that a row belongs to; null: splits are drawn."""
    split_names: dict[str, SplitName] = Field(default={})
    """Value in the split column: name of the split."""
    missing: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    """Words or numbers that stand for no value, besides empty, nan, null, none, na, n/a and --:
    [-99, not measured] for all columns but those of the id and the paths; or a mapping, such as
    {mag: [-99]}."""

    @model_validator(mode="after")
    def _check_features(self) -> "Columns":
        others = {self.id, self.label, self.target, self.weight, self.group, self.split}
        no_features = [name for name in self.features if name in others]
        if no_features:
            given = ", ".join(no_features)
            raise ValueError(
                f"features must not hold the id, label, target, weight, group or split: got {given}"
            )

        if "id" in self.keep:
            raise ValueError("keep must not hold 'id': the ids are kept in a column of that name")
        if len(set(self.keep)) < len(self.keep):
            raise ValueError(f"keep must not hold a column twice: got {', '.join(self.keep)}")
        if len(set(self.features)) < len(self.features):
            given = ", ".join(self.features)
            raise ValueError(f"features must differ from each other: got {given}")
        return self


class Join(Settings):
    """A second catalogue, whose columns are added to the rows that have the same key."""

    catalogue: FilePath
    """File in the source folder, of any kind that `catalogue` may be."""
    table: int | str | None = None
    """Which table of that file, as for `table`."""
    key: str
    """Column that both have; a row without a partner gets missing values."""
    key_there: str | None = None
    """Name of the key in this file; null: the same."""


class BadPixels(Settings):
    """What to do about pixels that hold no measurement: NaN, infinite, or equal to `mask`."""

    mask: float | None = None
    """A value that marks a masked pixel."""
    most: Probability = 0.0
    """Fraction of such pixels in a band up to which a cutout is kept; above it, the row is bad."""
    fill: Literal["zero", "median"] = "median"
    """What replaces them in a cutout that is kept: zero, or the median of the good pixels in the
    same band."""
    constant_bands: Literal["refuse", "keep"] = "refuse"
    """What to do about a cutout with a band whose pixels are all equal: it is bad, or it is kept
    where another band shows something."""


class Masks(Settings):
    """An image beside the pixels, in the same file, that says which of them are bad."""

    hdu: PartSetting = None
    """Number or name of the FITS HDU with the mask or weights, for example "{band}_DQ"."""
    key: PartSetting = None
    """Name of the array in an .npz or HDF5 file, or of the column of a FITS table."""
    bad: Annotated[str, Field(pattern=MASK_CONDITION)] = "!= 0"
    """Which values of the mask mark a bad pixel: "!= 0" for flags, "& 5" where only the bits 1
    and 4 count, "<= 0" for weights, "> 1e10" for errors. NaN always does."""


Side = Annotated[int, Field(gt=0, le=10_000)]
"""Height or width of a cutout in pixels: a larger one is no cutout, and fits into no memory."""

Plane = Annotated[int, Field(ge=0, lt=1 << 31)]

MOST_PIXELS = 10_000**2
"""Pixels of a cutout, over all of its bands."""


class Recipe(Settings):
    """A layout of catalogue and images on disk, in data: the recipe file of `lens-hpc pack`."""

    name: DatasetName
    """Name of the dataset."""
    catalogue: FilePath | None = None
    """Catalogue in the source folder: CSV (parted by , ; tab or |; .txt and .dat also by blanks),
    ECSV, CDS, IPAC, JSON lines, FITS, VOTable, HDF5, Feather, Parquet, or a WebDataset tar; texts,
    FITS and VOTable also as .gz; a folder of Parquet, HDF5, FITS or tar files is one table. Element
    3 of a vector column is named mag[3], from 0. Null: the image files that are found are the
    rows."""
    table: int | str | None = None
    """Which table of the catalogue's file: number or name of an HDU or of a VOTable's table, path
    in an HDF5 file; null: the first or only one."""
    join: Join | tuple[Join, ...] = ()
    """More catalogues, by a key: {catalogue: morphology.csv, key: object_id}, or a list."""
    where: str | None = None
    """Condition on columns, as for columns.label: only rows for which it is true are packed."""
    columns: Columns = Columns()
    """Which catalogue column is what."""
    images: PathPattern | dict[str, PathPattern] | None = None
    """Path of a row's image in the source folder. {column} stands for its value, {band} for each
    band; a list holds alternatives, a mapping gives each band its own path. {number:06d} is padded
    with zeros, {row} is the number of the row, from 0, where no column has that name. Without a
    catalogue, {name:regular expression} is allowed."""
    format: str | None = None
    """Format of the image files: fits | npy | npz | hdf5 | picture, or
    mypackage.module.read_image with code=[mypackage]; null: by the ending of each file."""
    stack: StackFiles | dict[str, StackFiles] | None = None
    """An array with all cutouts in the order of the catalogue, instead of `images`: .npy, .npz,
    HDF5, a FITS cube or a column of Parquet. A list is files that follow each other, as do those
    of a folder; a mapping gives each band its own.
    Without a catalogue, the columns are id (the row's number), file (its name, without the ending)
    and is_lens, from stack_labels."""
    stack_axes: Literal["NBHW", "NHWB", "NHW"] = "NBHW"
    """Order of the stack's axes: number, band, height, width."""
    stack_labels: FilePath | tuple[int, ...] | None = None
    """Labels of a stack without a catalogue: an .npy, .npz or HDF5 file with one for each row, or
    a list with one for each file of the stack: stack: [lenses.npy, others.npy] and [1, 0]."""
    stack_labels_key: str | None = None
    """Name of the array in the file of stack_labels."""
    mosaics: Mosaics | None = None
    """Large images from which the cutouts are made, instead of `images`. path is that of a mosaic,
    with {tile} and {band} in it; ra and dec are columns, in degrees (ICRS); tile is the column that
    names a row's tile, without which tiles are found by where they lie; zero_point is a magnitude
    or a word of the headers, and brings pixels to the recipe's own; edge (pad | skip) says what
    becomes of a cutout beyond an edge: {path: "{tile}/{band}.fits", ra: RA, dec: DEC}. `size` is
    that of a cutout; `hdu` and `masks.hdu` say where pixels and masks lie."""
    bands: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_BANDS)]
    """Names of the bands, in the order of the image planes."""
    hdu: PartSetting = None
    """Number or name of the FITS HDU with the image; null: the first with one, in an image or in
    a table's cell. Where each band has its own: a mapping from band to HDU, or "{band}_SCI"; and
    {column} stands for its value."""
    key: str | dict[str, str] | None = None
    """Name of the array in an .npz or HDF5 file (group/array), or of the column of a FITS table;
    also a mapping, or with {band} and {column}, as hdu."""
    axes: Literal["BHW", "HWB"] = "BHW"
    """Order of the axes of an image of several bands: band, height, width. The channels of a
    picture are its bands."""
    planes: Annotated[tuple[Plane, ...], Field(min_length=1, max_length=MOST_BANDS)] | None = None
    """Numbers, from 0, of the planes of an image that are its bands, as in [0, 1, 2] of RGBA;
    null: all of them."""
    masks: Masks | None = None
    """An image beside the pixels that says which of them are bad, in an HDU (hdu) or array (key)
    of the same file, and which of its values mean so (bad): {hdu: "{band}_DQ", bad: "!= 0"} for
    flags, "& 5" for the bits 1 and 4, "<= 0" for weights, "> 1e10" for errors."""
    follow_links: bool = False
    """Whether links may lead out of the source folder, for images on another disk, and paths of
    catalogues and stacks, too."""
    size: tuple[Side, Side] | None = None
    """Height and width to which every cutout is cropped or padded with zeros around its centre;
    null: all have the same size already."""
    pixel_scale: PositiveFloat | dict[str, PositiveFloat]
    """Arcseconds per pixel, or a mapping from band to that. Where bands differ, all are resampled
    to the finest grid, as `resampling` says."""
    resampling: Literal["flux", "surface_brightness"] | None = None
    """What resampling conserves: the sum of the pixels, or their brightness per area of the sky.
    null: the latter where `units` or the file's BUNIT (TUNIT) is of that kind, as
    MJy/sr."""
    units: str
    """Unit of the pixel values."""
    zero_point: float | dict[str, float | None] | None = None
    """Magnitude of a flux of one unit, or a mapping from band to that; null: unknown."""
    gain: PositiveFloat | dict[str, PositiveFloat | None] | None = None
    """Electrons per unit, or a mapping from band to that; null: unknown."""
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
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the drawn splits and of the shuffle of their rows."""

    @model_validator(mode="after")
    def _check_layout(self) -> "Recipe":
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("bands must differ from each other")
        ways = (self.images, self.stack, self.mosaics)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give one of images, stack and mosaics")
        self._check_stack()
        if self.size is not None and math.prod(self.size) * len(self.bands) > MOST_PIXELS:
            height, width = self.size
            raise ValueError(
                f"size: {len(self.bands)} bands of {height:,} x {width:,} pixels are too many for "
                f"a cutout; the most are {MOST_PIXELS:,} over all bands"
            )

        if self.catalogue is None and self.table is not None:
            raise ValueError("table is for a catalogue")

        self._check_bands("images", self.images)
        self._check_bands("stack", self.stack)
        self._check_bands("pixel_scale", self.pixel_scale)
        self._check_bands("hdu", self.hdu)
        self._check_bands("key", self.key)
        self._check_parts()
        self._check_bands("zero_point", self.zero_point)
        self._check_bands("gain", self.gain)
        self._check_mosaics()
        if self.columns.split is None:
            self._check_splits()
        return self

    def _check_stack(self) -> None:
        stacks = self.stack.values() if isinstance(self.stack, dict) else [self.stack]
        if self.stack is not None and self.format is not None:
            raise ValueError("format is for images; a stack is read by its ending")
        if any(isinstance(files, tuple) and not files for files in stacks):
            raise ValueError("stack must name a file")

        labels = self.stack_labels
        if labels is not None and (self.stack is None or self.catalogue is not None):
            raise ValueError("stack_labels is for a stack without a catalogue")
        if self.stack_labels_key is not None and not isinstance(labels, Path):
            raise ValueError("stack_labels_key is for a file of stack_labels")

        for files in stacks:
            count = len(files) if isinstance(files, tuple) else 1
            if isinstance(labels, tuple) and count != len(labels):
                raise ValueError(
                    f"stack_labels must be one for each file of the stack: got {len(labels)} "
                    f"for {count} files"
                )

    def _check_mosaics(self) -> None:
        mosaics = self.mosaics
        if mosaics is None:
            return
        if self.catalogue is None:
            raise ValueError("mosaics need a catalogue, which says where the objects are")
        if self.size is None:
            raise ValueError("mosaics need size: [height, width] of a cutout, in pixels")

        not_for_mosaics = {
            "key": self.key,
            "format": self.format,
            "planes": self.planes,
            "masks.key": self.masks.key if self.masks else None,
            "axes": None if self.axes == "BHW" else self.axes,
        }
        for setting, value in not_for_mosaics.items():
            if value is not None:
                raise ValueError(f"{setting} is not for mosaics, which are FITS images")
        if any("{" in str(hdu).replace("{band}", "") for hdu in _values(self.hdu)):
            raise ValueError("hdu may hold {band} for mosaics, and no column")

        self._check_bands("mosaics.path", mosaics.path)
        self._check_bands("mosaics.zero_point", mosaics.zero_point)
        for band in self.bands:
            if mosaics.zero_point_of(band) is not None and self.zero_point_of(band) is None:
                raise ValueError(
                    "mosaics.zero_point needs zero_point, to which the pixels of band "
                    f"{band} are brought"
                )

    def pixel_scale_of(self, band: str) -> float:
        """Return how wide the pixels of a band are. *Unit: arcsec*"""
        return self.pixel_scale[band] if isinstance(self.pixel_scale, dict) else self.pixel_scale

    @property
    def finest_pixel_scale(self) -> float:
        """How wide the pixels of the finest band are, as they are stored. *Unit: arcsec*"""
        return min(self.pixel_scale_of(band) for band in self.bands)

    def zero_point_of(self, band: str) -> float | None:
        """Return the magnitude of a flux of one unit in a band; None where it is not known."""
        return self.zero_point[band] if isinstance(self.zero_point, dict) else self.zero_point

    def _check_parts(self) -> None:
        if self.stack is not None and (self.axes != "BHW" or self.masks is not None):
            raise ValueError("axes and masks are for images; a stack has stack_axes")
        if self.masks is not None:
            self._check_bands("masks.hdu", self.masks.hdu)
            self._check_bands("masks.key", self.masks.key)
            if self.masks.hdu is None and self.masks.key is None:
                raise ValueError("masks must say where they lie: give masks.hdu or masks.key")
            names = [*_values(self.masks.hdu), *_values(self.masks.key)]
            if any("{" in str(name).replace("{band}", "") for name in names):
                raise ValueError("masks.hdu and masks.key may hold {band}, and no column")

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
        # A survey that is only to be scored, labelled or not, has neither.
        if "val" in self.splits and "train" not in self.splits:
            raise ValueError("splits must have one named train where one is named val")


def _srun_variable(name: str, default: int) -> int:
    """Return a number that srun gives to each task of a step; a batch script is no such task."""
    if "SLURM_STEP_NUM_TASKS" not in os.environ:
        return default
    return int(os.environ[name])


class PackSettings(Recipe):
    """A recipe, where its files are, and how they are packed."""

    not_in_files: ClassVar[frozenset[str]] = frozenset({"code"})
    shown_first: ClassVar[tuple[str, ...]] = (
        "source",
        "output",
        "name",
        "catalogue",
        "columns.id",
        "columns.label",
        "columns.features",
        "columns.keep",
        "columns.group",
        "images",
        "bands",
        "pixel_scale",
        "units",
        "size",
        "splits",
        "on_bad",
        "dry_run",
    )
    example: ClassVar[str] = """
name: my_survey
catalogue: catalogue.csv
columns: {id: objid, label: is_lens, features: [mag_i, color_gi]}
images: "cutouts/{objid}.fits"
bands: [g, r, i]
pixel_scale: 0.168
units: nanomaggies
source: data/my_survey
output: data/shards
"""

    source: FilePath
    """Folder that holds the catalogue and the images."""
    output: FilePath
    """Folder of the new dataset."""
    on_bad: Literal["error", "skip"] = "error"
    """What a bad row does: stop the packing, or be left out and listed in rejected.csv."""
    shard_mib: PositiveInt = 256
    """Largest size of a shard's images, MiB."""
    tile_memory: PositiveInt = 512
    """Memory that a compressed mosaic may take in a process, MiB a band; a larger one is
    decompressed in strips."""
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

    @model_validator(mode="after")
    def _check_files_are_inside(self, info: ValidationInfo) -> "PackSettings":
        """Refuse a file outside of the source folder that only the recipe's file names."""
        if not info.context or self.follow_links:
            return self

        problems = []
        for key, path in self._named_files():
            if any(f"{key}.".startswith(f"{own}.") for own in info.context["given"]):
                continue
            outside = first_outside(self.source / path, self.source)
            if outside is not None:
                problems.append(
                    f"{key}: {outside} leads out of the source folder {self.source}; "
                    f"follow_links=true reads it, as does {key.partition('.')[0]}=... on the "
                    "command line"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _named_files(self) -> Iterator[tuple[str, Path]]:
        """Return the setting that names a file or folder, and its path, which may be absolute."""
        if self.catalogue is not None:
            yield "catalogue", self.catalogue
        for join in [self.join] if isinstance(self.join, Join) else self.join:
            yield "join.catalogue", join.catalogue
        if isinstance(self.stack_labels, Path):
            yield "stack_labels", self.stack_labels

        stacks = self.stack if isinstance(self.stack, dict) else {"": self.stack}
        for band, files in stacks.items():
            for file in files if isinstance(files, tuple) else (files,):
                if file is not None:
                    yield f"stack.{band}".rstrip("."), file


def _values(setting: object) -> list[object]:
    """Return what a setting says of all bands, or of each."""
    return list(setting.values()) if isinstance(setting, dict) else [setting]
