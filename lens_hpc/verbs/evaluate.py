"""evaluate: score a split with a trained run, every sample once, and say how far to trust it."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from lens_hpc.settings import FilePath, Fraction, WordOrPath
from lens_hpc.settings import Settings as BaseSettings

if TYPE_CHECKING:
    from lens_hpc.reporting.evaluation import Evaluation

TARGET = "RUN [RUN ...]"
TARGET_SETTING = "runs"
EXTRA = "train"
SUMMARY = (
    "Score a split with a trained run, or with several as one ensemble: report.html, metrics.json, "
    "predictions.parquet and figures in RUN/evaluation/SPLIT."
)
EXAMPLE = "lens-hpc evaluate runs/demo split=test processes=2"
PROCESSES = (
    "Processes to start on this machine, one a GPU; without GPUs they share the cores. For several "
    "machines: accelerate launch."
)

Runs = Annotated[tuple[FilePath, ...], Field(min_length=1)]


def _name_arms(value: Any) -> Any:
    """Let each run of a list be an arm of its own, of its own name."""
    if isinstance(value, list | tuple):
        return {str(run): [run] for run in value}
    if not isinstance(value, dict):
        raise ValueError("must be runs, as in [a, b], or arms of them, {NAME: [a, b], ...}")
    return value


class Settings(BaseSettings):
    """Settings of `lens-hpc evaluate`."""

    shown_first: ClassVar[tuple[str, ...]] = (
        "split",
        "dataset",
        "compare",
        "arm",
        "prevalence",
        "known",
        "by",
        "tta",
        "processes",
    )

    runs: Runs
    """Run to evaluate; several are one ensemble, whose results the first keeps."""
    split: str = "test"
    """Split to score."""
    weights: WordOrPath = "best"
    """best (on the validation split, by train.best) | final (last epoch) | a FILE
    model.safetensors, its config.yaml beside it."""
    dataset: FilePath | None = None
    """Packed dataset to score instead of the run's own."""
    tta: Literal["none", "flips", "d4"] = "none"
    """Test-time augmentation: the mean over the 4 flips of each cutout, or over all 8 flips and
    quarter turns."""
    compare: Annotated[dict[str, Runs], BeforeValidator(_name_arms)] = Field(default_factory=dict)
    """Runs, evaluated in the same way before, to compare with: the ablation. [runs/image,
    runs/features], or arms of several seeds, each by its name: compare.image=[runs/i0,runs/i1]
    compare.features=[runs/f0,runs/f1]"""
    arm: tuple[FilePath, ...] = ()
    """Other seeds of the run, evaluated in the same way before: without them, a better run may just
    be lucky. [runs/b1, runs/b2]"""
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Fraction of lenses in the survey that the finder is meant for; the split may have any
    other."""
    survey_size: PositiveInt = 1_000_000
    """Objects of that survey: how many candidates would have to be inspected?"""
    completeness: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (
        0.5,
        0.7,
        0.8,
        0.9,
        0.95,
        0.99,
    )
    """Fractions of the lenses to find, for which purity and candidates are given."""
    by: tuple[str, ...] | None = None
    """Kept columns, columns of truth.parquet or features to break the results down by, as in
    [class, einstein_radius], numbers in five bins of equal count; else each kept column with 2 to
    12 different values. []: none."""
    known: FilePath | None = None
    """Catalogue of known lenses, with right ascension and declination in degrees (as lenscat has
    them): how many of those in the split are recovered, within 2 arcsec?"""
    allow: tuple[Literal["pixel_scale", "units"], ...] = ()
    """What may differ between the dataset and that of the training, as in [pixel_scale]; the report
    then says so."""
    batch_size: PositiveInt = 256
    """Cutouts of one forward pass on one process."""
    workers: NonNegativeInt = 2
    """Threads (processes, for compressed shards) that load for each process; 0: none."""
    code: tuple[str, ...] = ()
    """Packages of your own that the run's model may come from; nothing else is imported."""


def run(settings: Settings) -> "Evaluation | None":
    """Evaluate, on all processes; the first returns what was found."""
    from lens_hpc.reporting.evaluation import Scoring, evaluate_runs  # imports torch
    from lens_hpc.reporting.results import Survey

    survey = Survey(settings.prevalence, settings.survey_size, settings.completeness)
    scoring = Scoring(
        split=settings.split,
        weights=settings.weights,
        dataset=settings.dataset,
        tta=settings.tta,
        allow=settings.allow,
        batch_size=settings.batch_size,
        workers=settings.workers,
        code=settings.code,
        known=settings.known,
        by=settings.by,
        compare=settings.compare,
        arm=settings.arm,
    )
    return evaluate_runs(settings.runs, scoring, survey)


def text(evaluation: "Evaluation") -> str:
    """Show the metrics, and where everything else is."""
    return evaluation.text
