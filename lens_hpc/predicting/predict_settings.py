"""The settings of a prediction."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from lens_hpc.settings import FilePath, Settings, WordOrPath


class PredictSettings(Settings):
    """Settings of `lens-hpc predict`."""

    shown_first: ClassVar[tuple[str, ...]] = (
        "output",
        "source",
        "recipe",
        "prevalence",
        "tta",
        "candidates",
        "on_bad",
        "dry_run",
        "processes",
    )

    targets: tuple[FilePath, ...]
    """Runs that score, several as one ensemble, and last the survey: a recipe of mosaics, image
    files or stacks, or a packed dataset."""
    output: FilePath
    """Folder of the scores, which grows part by part; the same line goes on with it."""
    source: FilePath | None = None
    """Folder that holds the catalogue and images of a recipe."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Settings of the recipe that are other ones here: recipe.catalogue=survey.parquet. Its label,
    target, weight, group and split are not looked at."""
    weights: WordOrPath = "best"
    """best | final | a FILE model.safetensors, its config.yaml beside it."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of lenses among the objects, such as 1e-3, for which probabilities are calibrated;
    null: that of the run's validation split, which most surveys do not have."""
    tta: Literal["none", "flips", "d4"] = "none"
    """Test-time augmentation: the mean over the 4 flips of each cutout, or over all 8 flips and
    quarter turns."""
    candidates: NonNegativeInt = 1000
    """Highest scores that get a packed dataset of their own, OUTPUT/candidates."""
    random: NonNegativeInt = 0
    """Candidates that are drawn by chance among all others that have a score: graded with the top,
    they tell how many lenses the whole survey has, without bias."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of that draw: another one draws others."""
    truth: bool = False
    """Of an injected dataset: what was painted, such as einstein_radius, stands beside the scores,
    empty for what was not painted; as NAME_truth where a column NAME was kept, too."""
    on_bad: Literal["error", "skip"] = "error"
    """What a tile or shard does that cannot be read, when all others are scored: end as an error,
    to be mended and scored by the same line, or give all its objects the reason."""
    allow: tuple[Literal["pixel_scale", "units"], ...] = ()
    """What may differ from the training's, as in [pixel_scale]; the summary then says so."""
    batch_size: PositiveInt = 256
    """Cutouts of one forward pass on one process."""
    tile_memory: PositiveInt = 512
    """Memory that a compressed mosaic may take in a process, MiB a band; a larger one is
    decompressed in strips."""
    task: NonNegativeInt = 0
    """Number of this task among `tasks`, which share the survey, such as those of a Slurm array."""
    tasks: PositiveInt = 1
    """Number of tasks that write into the same output. The last one merges."""
    dry_run: bool = False
    """Only say how much there is to do, and how long it would take."""
    code: tuple[str, ...] = ()
    """Packages of your own that runs or the recipe may name; nothing else is imported."""

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: tuple[Path, ...]) -> tuple[Path, ...]:
        if len(targets) < 2:
            raise ValueError("a run and a survey are needed: lens-hpc predict RUN SURVEY ...")
        return targets

    @model_validator(mode="after")
    def _check_task(self) -> "PredictSettings":
        if self.task >= self.tasks:
            raise ValueError(f"task must be less than tasks: got {self.task} of {self.tasks}")
        return self

    @property
    def runs(self) -> tuple[Path, ...]:
        """The runs that score."""
        return self.targets[:-1]

    @property
    def survey(self) -> Path:
        """The recipe's file, or the packed dataset."""
        return self.targets[-1]
