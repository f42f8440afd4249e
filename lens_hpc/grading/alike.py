"""In what the cutouts of two datasets differ, so that a grader would tell them, or a model."""

from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.scoring.provenance import LARGEST_SCALE_DIFFERENCE, band_of_another_zero_point


def cutout_differences(here: SurveyKind, there: SurveyKind) -> list[str]:
    """Return in what cutouts are not such as others, in words; none where they are alike."""
    facts = {
        "bands": (", ".join(here.bands), ", ".join(there.bands)),
        "size": (f"{here.height} x {here.width} px", f"{there.height} x {there.width} px"),
        "units": (here.units, there.units),
    }
    found = [f"{name} {one}, not {other}" for name, (one, other) in facts.items() if one != other]

    scales = here.pixel_scale_arcsec, there.pixel_scale_arcsec
    if abs(scales[0] / scales[1] - 1) > LARGEST_SCALE_DIFFERENCE:
        found.append(f"pixels of {scales[0]:g} arcsec, not {scales[1]:g}")
    if band := band_of_another_zero_point(here, there):
        found.append(
            f"a zero point of {here.zero_point[band]:g} in {band}, not {there.zero_point[band]:g}"
        )
    return found
