"""The manifest of a dataset: what it holds, and how it was made.

A manifest may be damaged, or somebody else's: its names become paths and its numbers sizes of
arrays. So every name and number is checked, and that all of them agree with each other.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)

from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.errors import UserError
from lens_hpc.layout import CONFIG, MANIFEST, shard_file

SCHEMA_VERSION = 3
READABLE_VERSIONS = (2, 3)

PERCENTILES = (0.1, 1, 16, 50, 84, 99, 99.9)

MOST_BYTES = 256 << 20
MOST_PARTS = 2_000_000
MOST_VALUES = 20_000_000
"""Of a manifest, keys and lists, and values: that of 3 billion rows, or of 250,000 shards, is
smaller."""
PROBLEMS_SHOWN = 3
MOST_PROBLEMS = 10_000
"""Even to list more, in order to name the first, would take minutes and gigabytes."""
LONGEST_SHOWN = 80
LONGEST_NAME = 200
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _check_below(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("must not lead to another folder")
    return name


def _check_name(name: str) -> str:
    if not 0 < len(name.encode()) <= LONGEST_NAME or CONTROL_CHARACTER.search(name):
        raise ValueError(f"must have 1 to {LONGEST_NAME} bytes of UTF-8, no control character")
    return name


PackedName = Annotated[str, Field(max_length=10_000), AfterValidator(_check_below)]
DatasetName = Annotated[str, AfterValidator(_check_below), AfterValidator(_check_name)]
"""Of a new dataset: it can be shown. Old ones have longer names, and others."""
PackedSplit = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,254}$")]
"""It names a folder. Those of new datasets are shorter: settings.SplitName."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
AtLeastOne = Annotated[int, Field(ge=1, le=1 << 53)]
Checksum = Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
Names = Annotated[tuple[str, ...], Field(max_length=10_000), FailFast()]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ShardRecord(_Record):
    """One shard file, relative to the dataset."""

    file: str
    rows: AtLeastOne
    bytes: AtLeastOne
    crc32: Checksum
    block_crc32: Annotated[tuple[Checksum, ...], FailFast()]


class SplitRecord(_Record):
    """One split: its class counts and shards."""

    rows: AtLeastOne
    lenses: Count
    non_lenses: Count
    unlabelled: Count
    shards: Annotated[tuple[ShardRecord, ...], Field(min_length=1), FailFast()]

    @model_validator(mode="after")
    def _check_sums(self) -> "SplitRecord":
        in_shards = sum(shard.rows for shard in self.shards)
        if in_shards != self.rows:
            raise ValueError(f"rows are {self.rows}, those of its shards {in_shards}")
        of_classes = self.lenses + self.non_lenses + self.unlabelled
        if of_classes != self.rows:
            raise ValueError(f"rows are {self.rows}, those of its classes {of_classes}")
        return self


class FileRecord(_Record):
    """A file beside the shards."""

    bytes: Count
    crc32: Checksum


class Distribution(_Record):
    """How the values of a feature, or the pixels of a band, are distributed in training."""

    min: float
    max: float
    percentiles: dict[str, float]
    """Value at each of PERCENTILES, which are the keys: "0.1", "1", ..., "99.9"."""
    missing: Count
    """Values that the source does not have: empty cells, or pixels without a measurement."""

    @model_validator(mode="after")
    def _check_percentiles(self) -> "Distribution":
        absent = {f"{one:g}" for one in PERCENTILES} - self.percentiles.keys()
        if absent:
            raise ValueError(f"percentiles lack {', '.join(sorted(absent, key=float))}")
        return self


Numbers = Annotated[tuple[float, ...], FailFast()]
Distributions = Annotated[tuple[Distribution, ...], FailFast()]


class Statistics(_Record):
    """Statistics of the training split alone; missing features are left out."""

    feature_min: Numbers
    feature_max: Numbers
    feature_median: Numbers
    image_max: float
    """The brightest pixel of all bands, and at least 0."""
    features: Distributions = ()
    """For each feature, over all rows. Schema 2 has none."""
    bands: Distributions = ()
    """For each band, of the pixels as stored. Minimum and maximum are those of every pixel; the
    percentiles are exact for up to two million pixels a band, and beyond that those of a sample
    from rows all over the split. Schema 2 has none."""


class SourceRecord(_Record):
    """What a dataset was made from: it tells whether the source has changed since."""

    content: dict[str, str]
    """SHA-256 of each part of the catalogue that the recipe uses, such as the labels."""
    files: dict[str, str]
    """For each shard, SHA-256 of the times and sizes of the files that its images come from."""


class Manifest(_Record):
    """What manifest.json holds."""

    schema_version: int
    name: PackedName
    bands: Annotated[Names, Field(min_length=1)]
    height: AtLeastOne
    width: AtLeastOne
    dtype: Literal["float32", "float16", "uint8"]
    pixel_scale_arcsec: Annotated[float, Field(gt=0)]
    resampled: tuple[str, ...]
    """Bands that were resampled, flux conserved, to the grid of the finest."""
    units: str
    zero_point: dict[str, float | None] = {}
    """Magnitude of one unit of flux in each band; null or absent: unknown."""
    gain: dict[str, float | None] = {}
    """Electrons per unit of each band; null or absent: unknown."""
    features: Names
    grouped: bool
    """Whether rows belong to groups."""
    seed: Annotated[int, Field(ge=0)]
    block_rows: Literal[256]
    """Rows of a block, which has a checksum: shards.BLOCK_ROWS."""
    statistics: Statistics | None
    splits: Annotated[dict[PackedSplit, SplitRecord], Field(min_length=1)]
    rejected: Count
    """Rows of the source that were left out: rejected.csv says why."""
    duplicates_across_splits: Count
    """Cutouts that are identical, pixel for pixel, to one in another split."""
    recipe: dict[str, Any]
    created_by: str
    files: dict[FileName, FileRecord] = {}
    """Tables beside the shards, by name: columns.parquet, truth.parquet."""
    source: SourceRecord | None = None
    """None for schema 2, which does not know."""

    @property
    def kind(self) -> SurveyKind:
        """What a model must know of the cutouts and features."""
        return SurveyKind(
            name=self.name,
            bands=self.bands,
            height=self.height,
            width=self.width,
            pixel_scale_arcsec=self.pixel_scale_arcsec,
            units=self.units,
            zero_point=self.zero_point,
            features=self.features,
        )

    def is_of_same_rows(self, other: "Manifest") -> bool:
        """Say whether two manifests are of the same data, though files were touched in between."""
        return self.model_copy(update={"source": None}) == other.model_copy(update={"source": None})

    @model_validator(mode="after")
    def _check_names(self) -> "Manifest":
        for key, names in (("bands", self.bands), ("features", self.features)):
            if len(set(names)) < len(names):
                raise ValueError(f"{key} must differ from each other")
        for key in ("resampled", "zero_point", "gain"):
            strangers = set(getattr(self, key)) - set(self.bands)
            if strangers:
                raise ValueError(f"{key} names {sorted(strangers)[0]!r}, which is no band")
        return self

    @model_validator(mode="after")
    def _check_shards(self) -> "Manifest":
        for split, record in self.splits.items():
            files = [shard.file for shard in record.shards]
            if len(set(files)) < len(files):
                raise ValueError(f"the split {split} has a shard twice")

            for shard in record.shards:
                if not _is_shard_of(split, shard.file):
                    raise ValueError(f"{shard.file!r} is no name of a shard of {split}")
                blocks = -(-shard.rows // self.block_rows)
                if len(shard.block_crc32) != blocks:
                    raise ValueError(
                        f"{shard.file} has {len(shard.block_crc32)} checksums of {blocks} blocks"
                    )
        return self

    @model_validator(mode="after")
    def _check_statistics(self) -> "Manifest":
        statistics = self.statistics
        if statistics is None:
            return self

        described = {"feature": len(self.features), "band": len(self.bands)}
        for key, values in statistics:
            kind = "band" if key == "bands" else "feature"
            # Those of schema 2 have no distributions.
            is_older = key in {"bands", "features"} and not values
            if key != "image_max" and not is_older and len(values) != described[kind]:
                raise ValueError(f"statistics.{key} must have a value for each {kind}")
        return self


def _is_shard_of(split: str, file: str) -> bool:
    number = re.fullmatch(r"shard-(\d{5,9})\.h5", file.removeprefix(f"{split}/"), re.ASCII)
    return number is not None and file == shard_file(split, int(number[1]))


# ---- reading ----


class _Version(BaseModel):
    """The one thing to know of a manifest before the rest can be understood."""

    schema_version: int


def read_run_manifest(folder: Path) -> Manifest:
    """Read the manifest that a run has kept of its dataset. Raises as `read_manifest` does."""
    return _read(folder)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a dataset.

    Raises UserError when there is none, or when it is damaged or of a schema that is not read, and
    for a run, which has only kept the manifest.
    """
    manifest = _read(folder)
    holds_shards = any((folder / split).is_dir() for split in manifest.splits)
    if (folder / CONFIG).is_file() and not holds_shards:
        raise UserError(f"{folder} is a run, not a packed dataset; name another folder")
    return manifest


def _read(folder: Path) -> Manifest:
    file = folder / MANIFEST
    try:
        if not file.is_file():
            missing = f"it has no {MANIFEST}" if folder.exists() else "there is no such folder"
            raise UserError(
                f"{folder} is not a packed dataset: {missing}; make one with lens-hpc pack"
            )
        text = _read_bounded(file)
        version = _Version.model_validate_json(text, strict=True).schema_version
        if version not in READABLE_VERSIONS:
            readable = " and ".join(str(known) for known in READABLE_VERSIONS)
            raise UserError(
                f"{file}: schema version {version}, but this lens_hpc reads {readable}; "
                "pack it anew, or use the lens_hpc that packed it"
            )
        manifest = Manifest.model_validate_json(text, strict=True)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise UserError(
            f"{file}: is damaged ({_shown(error)}); copy it again, or pack the dataset anew"
        ) from error

    # A manifest that is being made gets its statistics last.
    if "train" in manifest.splits and manifest.statistics is None:
        raise UserError(
            f"{file}: is damaged (statistics: those of train are missing); copy it again, or pack "
            "the dataset anew"
        )
    return manifest


def _read_bounded(file: Path) -> bytes:
    """Return what a manifest holds. Raises UserError where it is larger than any."""
    size = file.stat().st_size
    text = b"" if size > MOST_BYTES else file.read_bytes()
    parts = text.count(b'":') + text.count(b"[")
    values = text.count(b",")
    if size > MOST_BYTES or parts > MOST_PARTS or values > MOST_VALUES:
        raise UserError(
            f"{file}: is damaged: {size:,} bytes with {parts:,} keys and lists and {values:,} "
            "values are more than any manifest has; copy it again, or pack the dataset anew"
        )
    return text


def _shown(error: ValidationError) -> str:
    """Name the first problems that pydantic found, in one line."""
    if error.error_count() > MOST_PROBLEMS:
        return f"{error.error_count():,} problems"
    problems = []
    for problem in error.errors(include_input=False, include_url=False)[:PROBLEMS_SHOWN]:
        place = ".".join(str(part) for part in problem["loc"])[:LONGEST_SHOWN]
        reason = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{place}: {reason}" if place else reason)
    if error.error_count() > PROBLEMS_SHOWN:
        problems.append(f"and {error.error_count() - PROBLEMS_SHOWN:,} more")
    return "; ".join(problems)
