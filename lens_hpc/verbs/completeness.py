"""completeness: which lenses a run would have found, of those painted on one's own galaxies."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import (
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.resources import usable_cpus
from lens_hpc.settings import FilePath, SplitName, WordOrPath
from lens_hpc.settings import Settings as BaseSettings

if TYPE_CHECKING:
    from lens_hpc.selection.threshold import Cut
    from lens_hpc.selection.written import Completeness

TARGET = "RUN [RUN ...] HOSTS"
TARGET_SETTING = "targets"
EXTRA = "inject"
SUMMARY = (
    "Paint lenses on the galaxies of the packed dataset HOSTS over a grid of Einstein radius and "
    "source magnitude, score them, and tell which are found, and whether for their arc: maps, "
    "curves and tables in RUN/completeness/NAME, and in the report of the next evaluate."
)
EXAMPLE = (
    "lens-hpc completeness runs/demo data/demo/shards recipe=configs/inject/demo.yaml "
    "splits=[test] fpr=0.05"
)

DEFAULT_RATE = 0.01
Edges = Annotated[tuple[FiniteFloat, ...], Field(min_length=2, max_length=101)]


class Settings(BaseSettings):
    """Settings of `lens-hpc completeness`."""

    kind_of_recipe: ClassVar[type[BaseSettings] | None] = InjectionRecipe

    targets: tuple[FilePath, ...]
    """Runs that score, several as one ensemble, whose first keeps the result; and last the packed
    dataset with galaxies that are no lenses, best none that were trained on."""
    recipe: FilePath
    """Recipe as of `lens-hpc inject`: which rows are hosts, PSF, gain, sources, ..."""
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)] | None = None
    """Splits with hosts, as in [test]; null: those of the recipe."""
    einstein_radius: Annotated[tuple[PositiveFloat, ...], Field(min_length=2, max_length=101)] = (
        0.5,
        0.75,
        1.0,
        1.25,
        1.5,
        2.0,
        2.5,
    )
    """Edges of the cells, arcsec, ascending; within a cell, radii are uniform."""
    source_magnitude: Edges = (21, 22, 23, 24, 25, 26)
    """Edges of the cells, AB magnitude of the source without lensing in the recipe's reference
    band, ascending."""
    by: str | None = None
    """Third axis: a feature or kept column of the hosts, such as a magnitude, or of what is
    painted: z_lens, seeing_i, ... Numbers are divided into five bins of equal count."""
    trials: PositiveInt = 200
    """Lenses painted in each cell, each on another host."""
    threshold: FiniteFloat | None = None
    """A lens is found from this score (logit) on. Give one of threshold, fpr and inspect."""
    fpr: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Or from the score on that this share of the hosts has as they are, without an arc. 0.01
    where none of the three is given."""
    inspect: PositiveInt | None = None
    """Or from the score on that so many objects of a survey of survey_size would have, if they were
    like the hosts."""
    survey_size: PositiveInt = 1_000_000
    """Objects of that survey."""
    occlusions: NonNegativeInt = 1000
    """Of so many trials the arc is hidden by sky, and as much beside it: which of the two lowers
    the score? 0: of none."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")] | None = None
    """Of the result, RUN/completeness/NAME, which replaces another of that name; null: that of
    HOSTS."""
    weights: WordOrPath = "best"
    """best | final | a FILE model.safetensors, its config.yaml beside it."""
    seed: NonNegativeInt = 0
    """Of the trials. The same seed gives the same trials on any number of processes."""
    allow: tuple[Literal["pixel_scale", "units"], ...] = ()
    """What may differ from the training's, as in [pixel_scale]."""
    batch_size: PositiveInt = 256
    """Cutouts of one forward pass."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes, which paint."""
    code: tuple[str, ...] = ()
    """Packages of your own that the run's model may come from; nothing else is imported."""

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: tuple[FilePath, ...]) -> tuple[FilePath, ...]:
        if len(targets) < 2:
            raise ValueError("a run and hosts are needed: lens-hpc completeness RUN HOSTS ...")
        return targets

    @field_validator("einstein_radius", "source_magnitude")
    @classmethod
    def _check_edges(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"edges must ascend: got {', '.join(f'{edge:g}' for edge in edges)}")
        return edges

    @model_validator(mode="after")
    def _check_threshold(self) -> "Settings":
        given = [
            name for name in ("threshold", "fpr", "inspect") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} cannot both decide what is found; give one")
        if self.inspect is not None and self.inspect >= self.survey_size:
            raise ValueError(
                f"inspect must be less than survey_size: got {self.inspect:,} of "
                f"{self.survey_size:,}"
            )
        return self


def run(settings: Settings) -> "Completeness":
    """Measure which lenses are found, or go on with it, and write it."""
    from lens_hpc.selection.grid import TrialGrid
    from lens_hpc.selection.selection_function import (  # imports torch
        Asked,
        measure_completeness,
    )

    asked = Asked(
        runs=settings.targets[:-1],
        hosts=settings.targets[-1],
        recipe=settings.recipe,
        grid=TrialGrid(settings.einstein_radius, settings.source_magnitude),
        trials=settings.trials,
        cut=_cut(settings),
        by=settings.by,
        splits=settings.splits,
        name=settings.name,
        weights=settings.weights,
        seed=settings.seed,
        occlusions=settings.occlusions,
        allow=settings.allow,
        batch_size=settings.batch_size,
        processes=settings.processes,
        code=settings.code,
    )
    return measure_completeness(asked)


def _cut(settings: Settings) -> "Cut":
    """Return what decides whether a lens is found."""
    from lens_hpc.selection.threshold import Cut

    is_given = settings.threshold is not None or settings.inspect is not None
    rate = None if is_given else settings.fpr or DEFAULT_RATE
    return Cut(settings.threshold, rate, settings.inspect, settings.survey_size)


def text(completeness: "Completeness") -> str:
    """Say what was found, and where everything is."""
    return completeness.text
