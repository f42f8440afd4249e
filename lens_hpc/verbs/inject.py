"""inject: paint lensed sources on the galaxies of a packed dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt, model_validator

from lens_hpc.packing.injection_recipe import InjectionRecipe, load_recipe
from lens_hpc.resources import usable_cpus
from lens_hpc.settings import FilePath
from lens_hpc.settings import Settings as BaseSettings

if TYPE_CHECKING:
    from lens_hpc.packing.injecting import Injected

TARGET = "DATASET"
TARGET_SETTING = "dataset"
EXTRA = "inject"
SUMMARY = (
    "Paint lensed sources on the galaxies of the packed dataset DATASET, through their survey's "
    "PSF: OUTPUT is a new dataset of lenses and non-lenses, with figures, and with truth.parquet, "
    "which tells what was painted."
)
EXAMPLE = (
    "lens-hpc inject data/demo/shards output=data/demo/injected recipe=configs/inject/demo.yaml"
)

OF_BANDS = ("psf", "zero_point", "gain")
"""Settings that are a mapping from bands."""


class Settings(InjectionRecipe):
    """Settings of `lens-hpc inject`: what the recipe's file says, unless it is said here."""

    kind_of_recipe: ClassVar[type[BaseSettings] | None] = InjectionRecipe
    shown_first: ClassVar[tuple[str, ...]] = (
        "output",
        "recipe",
        "share",
        "others",
        "seed",
        "known",
    )

    dataset: FilePath
    """Packed dataset with the hosts."""
    output: FilePath
    """Folder of the new dataset."""
    recipe: FilePath
    """File with the settings of a survey, such as configs/inject/hsc_wide.yaml. All settings but
    dataset, output, recipe and processes may stand there; those given beside it go first."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes; the bytes are the same for any number."""

    @model_validator(mode="before")
    @classmethod
    def _read_recipe(cls, given: Any) -> Any:
        recipe = given.get("recipe")
        if not isinstance(recipe, str | Path):
            if given.keys() & InjectionRecipe.model_fields.keys():
                return given
            raise ValueError(
                "recipe: missing; give recipe=FILE with the survey's PSF, deflectors and sources, "
                "such as configs/inject/hsc_wide.yaml"
            )
        changes: dict[str, Any] = {}
        for key in given.keys() & InjectionRecipe.model_fields.keys():
            if key in OF_BANDS and isinstance(given[key], dict):
                # Bands that are not given stay as they are in the file.
                changes |= {f"{key}.{band}": value for band, value in given[key].items()}
            else:
                changes[key] = given[key]
        read = load_recipe(Path(recipe), changes)
        return given | {key: getattr(read, key) for key in InjectionRecipe.model_fields}


def run(settings: Settings) -> "Injected":
    """Paint arcs on the hosts, or go on; the dataset appears when all of it is complete."""
    from lens_hpc import files, layout
    from lens_hpc.holding import held
    from lens_hpc.packing.injecting import inject  # imports torch
    from lens_hpc.reporting.injected import draw

    recipe = InjectionRecipe(
        **{key: getattr(settings, key) for key in InjectionRecipe.model_fields}
    )
    output = files.final_name(settings.output)
    with held(output):
        injected = inject(settings.dataset, output, recipe, settings.processes)
        if not (output / layout.INJECTION_SHEET).exists():
            files.remove_partials(output)
            draw(output, settings.dataset, injected.gate)
    return injected


def text(injected: "Injected") -> str:
    """Say what was painted, and how it compares with known lenses."""
    return injected.text
