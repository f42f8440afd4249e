"""The settings of a combination of grades."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from lens_hpc.settings import FilePath, Probability, Settings


class Targets(Settings):
    """What a candidate of each grade is in training: 1 a lens, 0 none."""

    A: Probability = 1.0
    """Soft label of what is certainly a lens."""
    B: Probability = 0.7
    """Of what is probably one."""
    C: Probability = 0.0
    """Of what is possibly one."""
    X: Probability = 0.0
    """Of what is none."""


class Contaminants(Settings):
    """How much a candidate of grade C or X counts in the loss, by its class."""

    ring: NonNegativeFloat = 1.0
    """Weight of a ring galaxy of grade C or X; anything else weighs 1."""
    spiral: NonNegativeFloat = 1.0
    """Of a spiral galaxy."""
    merger: NonNegativeFloat = 1.0
    """Of a merger."""
    companion: NonNegativeFloat = 1.0
    """Of a galaxy with companions."""
    artefact: NonNegativeFloat = 1.0
    """Of an artefact of the camera or the reduction."""
    other: NonNegativeFloat = 1.0
    """Of anything else that is no lens."""


class CombineSettings(Settings):
    """Settings of `lens-hpc combine`."""

    sources: Annotated[tuple[FilePath, ...], Field(min_length=1)]
    """Folder of the grading, and behind it files of grades that were saved by the page."""
    output: FilePath
    """Folder of the list; an older one of the same grading is replaced."""
    known: FilePath | None = None
    """Catalogue of known lenses, with right ascension and declination in degrees (as lenscat has
    them): is a candidate one of them, within 2 arcsec, or new?"""
    into: FilePath | None = None
    """Packed dataset that the graded candidates join: OUTPUT/dataset is its next generation."""
    frozen: Literal["refuse", "leave_out"] = "refuse"
    """What is done about a candidate that belongs to val or test of `into`: end as an error, or go
    on without it."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of lenses among the candidates, before anybody has looked: the prior of SWAP."""
    targets: Targets = Field(default_factory=Targets)
    """Soft labels in training."""
    contaminants: Contaminants = Field(default_factory=Contaminants)
    """Weights in training."""
    sheet: Literal["pdf", "png", "none"] = "pdf"
    """Contact sheet of grades A and B."""
    zooniverse: bool = False
    """Whether pictures of all candidates and their manifest are written for Zooniverse."""

    @property
    def grading(self) -> Path:
        """Folder of the grading."""
        return self.sources[0]

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of grades that lie elsewhere."""
        return self.sources[1:]
