"""What kind of survey cutouts are of: what must agree between a model's training and its use."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SurveyKind:
    """What a model must know of cutouts and features, whatever they are read from."""

    name: str
    """Of the dataset or recipe, for messages."""
    bands: tuple[str, ...]
    height: int
    """Pixels of a cutout, as `width`."""
    width: int
    pixel_scale_arcsec: float
    units: str
    zero_point: Mapping[str, float | None]
    """Magnitude of one unit of flux in each band; None or absent: unknown."""
    features: tuple[str, ...]
