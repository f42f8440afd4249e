"""The settings of a grading."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from lens_hpc.settings import FilePath, Fraction, Settings

Rule = Literal["top", "uncertain", "diverse", "random"]


class GradeSettings(Settings):
    """Settings of `lens-hpc grade`."""

    candidates: FilePath
    """Packed dataset with the split candidates, as predict writes it."""
    output: FilePath
    """Folder of the grading; the same line goes on with it."""
    known: FilePath | None = None
    """Packed dataset with known lenses, some of which are hidden among the candidates to measure
    the graders."""
    injected: FilePath | None = None
    """The same with painted arcs, as inject writes it."""
    ordinary: FilePath | None = None
    """The same with galaxies that are no lenses."""
    hidden_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of hidden galaxies among all that is shown."""
    choose: Rule | Annotated[dict[Rule, Fraction], Field(min_length=1)] = "top"
    """Which candidates are graded: top | uncertain | diverse | random, or shares of several, as in
    {top: 0.7, random: 0.3}. Without limit, all are."""
    limit: PositiveInt | None = None
    """Most candidates to grade; null: all."""
    run: FilePath | None = None
    """Run whose model tells diverse candidates from each other."""
    show: tuple[str, ...] = ()
    """Kept columns of the candidates that the page shows, as in [z_phot]. One such as a class may
    tell what is hidden."""
    port: Annotated[NonNegativeInt, Field(lt=65536)] = 0
    """Of the page's address; 0: one that is free."""
    page: FilePath | None = None
    """File, as in vetting.html, that becomes a page of its own, to be mailed, in place of serving.
    It keeps grades in the browser and saves a file for combine."""
    seed: NonNegativeInt = 0
    """Of what is drawn, and of the order."""

    code: tuple[str, ...] = ()
    """Packages of your own that the run's model may come from; nothing else is imported."""

    @model_validator(mode="after")
    def _check_choice(self) -> "GradeSettings":
        if "diverse" in self.rules and self.run is None:
            raise ValueError("choose: diverse needs a model; give run=RUN")
        return self

    @field_validator("page")
    @classmethod
    def _check_page(cls, page: Path | None) -> Path | None:
        # What lies there is replaced, which must never be a file of grades.
        if page is not None and page.suffix not in {".html", ".htm"}:
            raise ValueError(f"{page} must end in .html")
        return page

    @property
    def rules(self) -> set[str]:
        """The rules by which candidates are chosen."""
        return {self.choose} if isinstance(self.choose, str) else set(self.choose)

    @property
    def hidden(self) -> dict[str, Path]:
        """The datasets of what is hidden, by kind."""
        given = {"known": self.known, "injected": self.injected, "ordinary": self.ordinary}
        return {kind: path for kind, path in given.items() if path is not None}
