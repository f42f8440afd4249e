"""The recipe of an injection: which galaxies get arcs, through which PSF, and by what law."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, StrictStr, model_validator

from lens_hpc.packing.conditions import words_in_condition
from lens_hpc.packing.templates import check_template, template_fields
from lens_hpc.settings import FilePath, Fraction, Settings, SplitName, load
from lens_hpc.sky.laws import DeflectorLaw, SourceLaw


class SeeingColumn(Settings):
    """A PSF that differs from host to host."""

    column: str
    """Feature or kept column with the FWHM at each host, arcsec."""


Psf = PositiveFloat | SeeingColumn | StrictStr


class InjectionRecipe(Settings):
    """How lensed sources are painted on galaxies of a survey."""

    example: ClassVar[str] = """
psf: {g: 0.8, r: 0.7, i: 0.6}
deflector:
  einstein_radius: {power: [0.5, 0.6, 1.7]}
  z_lens: {uniform: [0.2, 0.8]}
sources:
  z: {normal: [2.0, 0.5], within: [1.2, 4.0]}
  band: i
  magnitude: {normal: [24.4, 0.7]}
  colors: {g: {normal: [0.5, 0.2]}, r: {normal: [0.2, 0.1]}}
"""

    where: str = "label != 1"
    """Which rows may be hosts: a condition on features and kept columns, as in pack's recipes, and
    on the names label (1 lens, 0 not, -1 unlabelled) and split: label != 1 & color_gi > 1.2. A
    host that is labelled a lens is an error."""
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)] | None = None
    """Splits with hosts; all others stay as they are. null: all splits."""
    share: Fraction = 0.5
    """Share of the hosts of each split that get an arc, drawn by (seed, id)."""
    others: Literal["nonlens", "keep", "drop"] = "nonlens"
    """What becomes of the rest. nonlens: hosts without an arc are non-lenses, and rows that are no
    hosts are left out, so that lens and non-lens are galaxies of one law. keep: every row stays as
    it is, and a host with an arc is a new row, ID+arc, behind its host. drop: hosts with an arc
    are all."""
    psf: Annotated[dict[str, Psf], Field(min_length=1)]
    """PSF of each band: its FWHM in arcsec (a Moffat profile), {column: NAME} of the FWHM at each
    host, or a FITS file with a stamp, odd, square, centred, of sum 1 and of the cutouts' pixel
    scale, for all hosts or, by {COLUMN} in its name, for those of a tile."""
    zero_point: dict[str, float] = Field(default={})
    """AB magnitude of one unit of flux in each band; where not given, the dataset's."""
    gain: dict[str, PositiveFloat] = Field(default={})
    """Electrons per unit of flux in each band, for the photon noise of arcs; where not given, the
    dataset's."""
    deflector: DeflectorLaw
    """How the host bends light."""
    sources: SourceLaw
    """What lies behind it."""
    pixels: Literal["linear", "assume_linear"] = "linear"
    """linear: pixels that are 8-bit or display-stretched are refused. assume_linear: they are taken
    for fluxes, which they are not; the manifest says so."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """An arc is a function of the seed and of its host's id."""
    known: FilePath | None = None
    """Table of known lenses (CSV, FITS, Parquet, ...) with columns of the truth, such as
    einstein_radius: what is painted must look like them."""
    gate: Literal["refuse", "warn"] = "refuse"
    """What happens if the median of what was painted lies outside the 5 to 95 % of the known."""

    @model_validator(mode="after")
    def _check_bands(self) -> "InjectionRecipe":
        for setting in ("zero_point", "gain"):
            strangers = set(getattr(self, setting)) - set(self.psf)
            if strangers:
                raise ValueError(
                    f"{setting} names {sorted(strangers)[0]!r}, which is no band of psf: "
                    f"{', '.join(self.psf)}"
                )
        for psf in self.psf.values():
            if isinstance(psf, str):
                check_template(psf)
        return self

    def columns(self, bands: Sequence[str]) -> list[str]:
        """Return the catalogue columns that arcs in these bands are a function of, each once."""
        names = self.deflector.columns()
        for psf in (self.psf[band] for band in bands if band in self.psf):
            if isinstance(psf, SeeingColumn):
                names.append(psf.column)
            elif isinstance(psf, str):
                names += template_fields(psf)
        return list(dict.fromkeys(names))

    def condition_words(self) -> list[str]:
        """Return the columns that `where` names, and perhaps some more words."""
        return words_in_condition(self.where)


def load_recipe(file: Path, changes: Mapping[str, Any] | None = None) -> InjectionRecipe:
    """Read a recipe's file, and the settings that are other ones here.

    Raises UserError with every problem.
    """
    return load(InjectionRecipe, file, values=changes)
