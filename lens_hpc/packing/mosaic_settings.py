"""What a recipe says of a survey whose pixels lie in mosaics: the group `mosaics`."""

from typing import Literal

from pydantic import model_validator

from lens_hpc.settings import Settings

ZeroPoint = float | str
"""A magnitude, or the word of a FITS header that holds it."""

TILE = "tile"
BAND_FIELD = "{band}"


class Mosaics(Settings):
    """Large images that hold many objects each; the catalogue says where on the sky these are."""

    path: str | dict[str, str]
    """Path of a mosaic in the source folder: {tile} stands for the name of its tile, {band} for
    each band; a mapping gives each band its own path. {tile:regular expression} is allowed, and
    so are other fields, which may be anything."""
    ra: str = "ra"
    """Column of the right ascension, in degrees (ICRS)."""
    dec: str = "dec"
    """Column of the declination, in degrees (ICRS)."""
    tile: str | None = None
    """Column that names the tile of a row; null: tiles are found by where they lie on the sky. Of
    several that hold an object it is the one in which the object is farthest from an edge."""
    zero_point: ZeroPoint | dict[str, ZeroPoint] | None = None
    """Magnitude of one unit in the files: a number, the word of the header that holds it, such as
    MAGZERO, or a mapping from band to either. Pixels are brought to the recipe's own `zero_point`.
    null: pixels stay as they are."""
    edge: Literal["pad", "skip"] = "pad"
    """What becomes of a cutout that reaches beyond its mosaic: the missing part is filled as
    bad_pixels.fill says, or the row is bad."""

    @model_validator(mode="after")
    def _check_paths(self) -> "Mosaics":
        paths = self.path.values() if isinstance(self.path, dict) else [self.path]
        for path in paths:
            if "{" + TILE + "}" not in path and "{" + TILE + ":" not in path:
                raise ValueError(
                    f"path must hold {{tile}}, which names the tile of a file: got {path}"
                )
        return self

    def path_of(self, band: str) -> str:
        """Return the pattern of the paths of a band."""
        return self.path[band] if isinstance(self.path, dict) else self.path

    def zero_point_of(self, band: str) -> ZeroPoint | None:
        """Return what says the zero point of a band's files; None where nothing does."""
        return self.zero_point[band] if isinstance(self.zero_point, dict) else self.zero_point

    def named_columns(self) -> list[tuple[str, str]]:
        """Return which setting names which column of the catalogue."""
        named = [("mosaics.ra", self.ra), ("mosaics.dec", self.dec)]
        if self.tile is not None:
            named.append(("mosaics.tile", self.tile))
        return named
