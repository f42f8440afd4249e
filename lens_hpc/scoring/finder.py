"""The Finder: a trained run, or several as an ensemble, that scores arrays of one's own.

    finder = Finder.load("runs/first")
    logits = finder.score(images, features)
    probabilities = finder.probability(images, features, prevalence=1e-3)

Shapes: N cutouts, F catalogue features.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lens_hpc.errors import UserError
from lens_hpc.files import expand
from lens_hpc.layout import BEST, CALIBRATION, FINAL
from lens_hpc.logs import logger
from lens_hpc.model.trained import TrainedModel, load_trained, weights_folder
from lens_hpc.scoring.batches import BatchScorer, check_alike, needs_light
from lens_hpc.scoring.calibration import (
    Calibration,
    calibrated_probability,
    read_calibrations,
)
from lens_hpc.scoring.out_of_memory import out_of_memory_named, smaller_batch_size

ROWS_SHOWN = 5


class Finder:
    """Trained models that score cutouts together, on one device."""

    def __init__(self, members: Sequence[TrainedModel], device: str | torch.device = "cpu") -> None:
        check_alike(members)
        self.members = tuple(members)
        self._calibrations = read_calibrations(members)
        try:
            self.device = torch.device(device)
            self._scorer = BatchScorer(members, self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device = {device}: cannot be used ({str(error).splitlines()[0]}); choose "
                "another, such as cpu or cuda"
            ) from error

    @classmethod
    def load(
        cls,
        *runs: str | Path | Sequence[str | Path],
        weights: str | Path = BEST,
        device: str | torch.device | None = None,
        code: Collection[str] = (),
    ) -> "Finder":
        """Load a run, or several as an ensemble.

        `weights` is best, final, or a file. `device` is a torch device; None takes a GPU where
        there is one. `code` names the packages of your own that the model may come from: nothing
        is imported because a run names it. Raises UserError for what is missing or damaged.
        """
        paths = _run_paths(runs)
        if len(paths) > 1 and weights not in {BEST, FINAL}:
            raise UserError(
                f"weights = {weights}: one FILE is not the weights of {len(paths)} runs"
            )
        folders = [weights_folder(run, str(weights)) for run in paths]
        members = [load_trained(folder, code) for folder in folders]
        return cls(members, default_device() if device is None else device)

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of a cutout, in the order that the models were trained on."""
        return self.members[0].manifest.bands

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that are needed, in their order; none for images alone."""
        for member in self.members:
            if member.sees_features:
                return member.manifest.features
        return ()

    @property
    def is_calibrated(self) -> bool:
        """Whether every member keeps what `probability` needs."""
        return all(calibration is not None for calibration in self._calibrations)

    def score(
        self,
        images: np.ndarray,
        features: Any = None,
        *,
        bands: Sequence[str] | None = None,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Score cutouts: logits (N,) float32, the higher the more like a lens.

        `images` (N, bands, height, width) are physical values in the units of the training, never
        normalised. `features` are (N, F) numbers in the order of `self.features`, or columns by
        name (a dictionary, a DataFrame); NaN is a missing value. `bands`, where given, says in
        which order the bands of `images` are, and is checked. An ensemble gives the mean of its
        logits. A cutout without a pixel above 0 has no score: NaN. Raises UserError for another
        shape, another order of bands, or NaN in images.
        """
        return np.mean(self._member_logits(images, features, bands, batch_size), axis=0)

    def probability(
        self,
        images: np.ndarray,
        features: Any = None,
        *,
        prevalence: float | None = None,
        method: Literal["temperature", "isotonic"] = "temperature",
        bands: Sequence[str] | None = None,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Return the probability (N,) float64 that each cutout is a lens.

        It is calibrated on the validation split of each run. `prevalence` is the share of lenses
        among the objects to score, such as 1e-3; None keeps that of the validation split. An
        ensemble gives the mean of its members' probabilities. Arguments and errors are those of
        `score`; a run that keeps no calibration is a UserError, too.
        """
        calibrations = self._require_calibrations()
        is_share = isinstance(prevalence, int | float) and 0 < prevalence < 1
        if prevalence is not None and not is_share:
            raise UserError(f"prevalence = {prevalence}: must lie between 0 and 1, as in 1e-3")
        if method not in {"temperature", "isotonic"}:
            raise UserError(f"method = {method}: valid: temperature, isotonic")

        logits = self._member_logits(images, features, bands, batch_size)
        return calibrated_probability(calibrations, logits, prevalence, method)

    def __repr__(self) -> str:
        manifest = self.members[0].manifest
        runs = ", ".join(str(member.folder) for member in self.members)
        kinds = ", ".join(_kind(member) for member in self.members)
        if self.is_calibrated:
            shares = [f"{c.prevalence:.3g}" for c in self._calibrations if c is not None]
            calibrated = f"for a share of lenses of {', '.join(shares)}, or as you say"
        else:
            calibrated = "none: scores only"
        return (
            f"Finder({runs})\n"
            f"  model        {kinds}\n"
            f"  cutouts      {', '.join(self.bands)}; {manifest.height} x {manifest.width} px of "
            f"{manifest.pixel_scale_arcsec:g} arcsec; {manifest.units}\n"
            f"  features     {', '.join(self.features) or 'none'}\n"
            f"  probability  {calibrated}\n"
            f"  device       {self.device}"
        )

    # ---- scoring ----

    @torch.inference_mode()
    def _member_logits(
        self, images: np.ndarray, features: Any, bands: Sequence[str] | None, batch_size: int
    ) -> np.ndarray:
        """Return the logits of each member, (members, N) float32."""
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size = {batch_size}: must be a whole number above 0")
        images = self._checked_images(images, bands)
        table = self._checked_features(features, len(images))

        logits = np.empty((len(self.members), len(images)), dtype=np.float32)
        is_dark = np.zeros(len(images), dtype=bool)
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            with np.errstate(over="ignore"):  # what overflows is told below
                pixels = np.asarray(images[rows], dtype=np.float32)
            _check_finite(pixels, start)
            with out_of_memory_named(smaller_batch_size(batch_size)):
                logits[:, rows] = self._scorer(pixels, table[rows])
            is_dark[rows] = pixels.max(axis=(1, 2, 3)) <= 0

        bad = np.flatnonzero(~np.isfinite(logits).all(axis=0))
        if len(bad):
            raise UserError(
                f"the scores of {_shown_rows(bad)} are no numbers: their pixels are beyond what "
                "the model was trained on, or its weights are damaged"
            )
        return self._without_dark(logits, is_dark)

    def _without_dark(self, logits: np.ndarray, is_dark: np.ndarray) -> np.ndarray:
        """Return logits (members, N) with NaN for cutouts (N,) that have no pixel above 0.

        They cannot be scaled by their brightest pixel, and were never trained on.
        """
        scaled = np.array([needs_light(member) for member in self.members])
        if is_dark.any() and scaled.any():
            logits[np.ix_(scaled, is_dark)] = np.nan
            logger.warning(
                "%d cutouts have no score, for no pixel of them is above 0: %s",
                is_dark.sum(),
                _shown_rows(np.flatnonzero(is_dark)),
            )
        return logits

    def _require_calibrations(self) -> list[Calibration]:
        found = []
        for member, calibration in zip(self.members, self._calibrations, strict=True):
            if calibration is None:
                raise UserError(
                    f"{member.folder}: keeps no {CALIBRATION} (it was trained by a version before "
                    "0.2, or its validation split lacks a class), so only score() is possible; "
                    "lens-hpc evaluate gives calibrated probabilities of a packed split"
                )
            found.append(calibration)
        return found

    # ---- checks ----

    def _checked_images(self, images: np.ndarray, bands: Sequence[str] | None) -> np.ndarray:
        """Return images as numbers of this machine. Raises UserError for what cannot be scored."""
        manifest = self.members[0].manifest
        if bands is not None and tuple(bands) != self.bands:
            raise UserError(
                f"bands = {', '.join(bands)}: the model was trained on {', '.join(self.bands)}, in "
                "this order; reorder the second axis of images"
            )

        if np.ma.is_masked(images):
            raise UserError("images have masked pixels; fill them, as in images.filled(0)")
        images = np.asarray(images)
        shape = (len(self.bands), manifest.height, manifest.width)
        if images.ndim != 4 or images.shape[1:] != shape:
            raise UserError(
                f"images have the shape {images.shape}, the model was trained on (N, bands, "
                f"height, width) = (N, {', '.join(map(str, shape))}) with the bands "
                f"{', '.join(self.bands)}"
            )
        if images.dtype.kind not in "fiu":
            raise UserError(f"images must be numbers, not {images.dtype}")

        return images

    def _checked_features(self, features: Any, count: int) -> np.ndarray:
        """Return features as (N, F) float32. Raises UserError for what cannot be scored."""
        names = self.features
        if not names:
            return np.empty((count, 0), dtype=np.float32)
        if features is None:
            raise UserError(f"the model needs the features {', '.join(names)}, in this order")

        try:
            table = _as_table(features, names)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"features cannot be read as numbers ({error}); give (N, {len(names)}) numbers, or "
                f"columns by name: {', '.join(names)}"
            ) from error
        if table.shape != (count, len(names)):
            raise UserError(
                f"features have the shape {table.shape}, for {count} images it must be "
                f"({count}, {len(names)}): {', '.join(names)}"
            )
        bad = np.flatnonzero(np.isinf(table).any(axis=1))
        if len(bad):
            raise UserError(
                f"features of {len(bad):,} rows are infinite: {_shown_rows(bad)}; use NaN for a "
                "missing value"
            )
        return table


def _run_paths(runs: Sequence[Any]) -> list[Path]:
    """Return the runs that a user gave, one by one or as a list."""
    if len(runs) == 1 and isinstance(runs[0], tuple | list):
        runs = runs[0]
    if not runs:
        raise UserError("Finder.load needs a run, as in Finder.load('runs/first')")
    return [expand(run) for run in runs]


def _as_table(features: Any, names: Sequence[str]) -> np.ndarray:
    """Return features as (N, F) float32; columns by name come from any kind of table."""
    columns = _column_names(features)
    if columns is not None:
        absent = [name for name in names if name not in columns]
        if absent:
            raise UserError(f"features lack {', '.join(absent)}; needed: {', '.join(names)}")
        features = np.column_stack([np.asarray(features[name], dtype=float) for name in names])
    return np.asarray(features, dtype=np.float32)


def _column_names(features: Any) -> list[str] | None:
    """Return the names of a table's columns; None for a plain array."""
    if isinstance(features, Mapping):
        return [str(name) for name in features]
    if getattr(features, "colnames", None):  # astropy
        return list(features.colnames)
    if getattr(getattr(features, "dtype", None), "names", None):  # NumPy's records, FITS tables
        return list(features.dtype.names)
    if hasattr(features, "columns"):  # pandas
        return [str(name) for name in features.columns]
    return None


def default_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_finite(pixels: np.ndarray, first_row: int) -> None:
    """Raise UserError for cutouts (B, bands, height, width) with pixels that are no numbers."""
    bad = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))
    if len(bad):
        raise UserError(
            f"images have pixels that are NaN or infinite in {_shown_rows(bad + first_row)}; "
            "replace them, for instance by the median of their band"
        )


def _kind(member: TrainedModel) -> str:
    model = member.settings.model
    name = model.backbone if model.name == "fusion" else model.name
    return f"{model.inputs} ({name})" if model.inputs != "features" else "features"


def _shown_rows(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:ROWS_SHOWN]))
    more = ", ..." if len(rows) > ROWS_SHOWN else ""
    return f"rows {shown}{more}"
