"""Zero points and gains of the hosts, of their dataset or of the recipe."""

import numpy as np

from lens_hpc.dataset.manifest import Manifest
from lens_hpc.errors import UserError
from lens_hpc.packing.injection_recipe import InjectionRecipe


def calibration(recipe: InjectionRecipe, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Return zero point and gain of each band of a dataset, (bands,) each.

    Raises UserError with all that recipe and dataset leave open.
    """
    problems = _band_problems(recipe, manifest)
    numbers = []
    for key, stored in (("zero_point", manifest.zero_point), ("gain", manifest.gain)):
        known = stored | getattr(recipe, key)
        unknown = [band for band in manifest.bands if known.get(band) is None]
        if unknown:
            problems.append(
                f"{key}: that of {', '.join(unknown)} is unknown; give {key}.{unknown[0]}=..., or "
                "pack the hosts with it"
            )
        numbers.append([known.get(band) for band in manifest.bands])

    zero_points, gains = (np.array(values, dtype=np.float64) for values in numbers)
    is_wrong = gains <= 0
    if is_wrong.any():
        band = manifest.bands[int(is_wrong.argmax())]
        problems.append(
            f"gain: that of {band} is not above 0; give gain.{band}=..., electrons per unit"
        )
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"the recipe does not fit the hosts, {manifest.name}:\n{listed}")
    return zero_points, gains


def _band_problems(recipe: InjectionRecipe, manifest: Manifest) -> list[str]:
    """Return which of the dataset's bands the recipe says nothing of."""
    colored = [recipe.sources.band, *recipe.sources.colors]
    problems = []
    for setting, named in (("psf", [*recipe.psf]), ("sources.colors", colored)):
        absent = [band for band in manifest.bands if band not in named]
        if absent:
            problems.append(
                f"{setting}: says nothing of {', '.join(absent)}, bands of the hosts; it has "
                f"{', '.join(named)}"
            )
    return problems
