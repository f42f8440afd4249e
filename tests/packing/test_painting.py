"""An arc is a function of seed, id and trial; pixels outside of it are the host's to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.packing.arc_facts import flux_ratio, magnitudes, noise_of, signal_to_noise
from lens_hpc.packing.painting import NEGLIGIBLE, ArcTrial, Painted, Painter, add_arc
from lens_hpc.sky.injection import CannotLensError
from lens_hpc.sky.psf import moffat_stamp
from tests.packing.injections import BANDS, SIZE, SKY, ZERO_POINT, galaxy, pack_galaxies, recipe_of

CATALOGUE = {"sigma_v": 270.0, "z": 0.3, "seeing_i": 0.6, "tile": "t1"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(pack_galaxies(tmp_path_factory.mktemp("painting")))


@pytest.fixture(scope="module")
def painter(manifest: Manifest) -> Painter:
    return Painter(recipe_of(), manifest)


@pytest.fixture
def cutout() -> np.ndarray:
    return galaxy(np.random.default_rng(3))


def paint(painter: Painter, cutout: np.ndarray, name: str = "a", **trial: Any) -> Painted:
    return painter.paint(cutout, name, CATALOGUE, ArcTrial(**trial))


def test_the_same_id_and_trial_give_the_same_bytes(painter: Painter, cutout: np.ndarray) -> None:
    first, again = paint(painter, cutout), paint(painter, cutout)
    assert first.pixels.tobytes() == again.pixels.tobytes()
    assert first.truth == again.truth

    others = [paint(painter, cutout, "b"), paint(painter, cutout, number=1)]
    assert len({first.truth["einstein_radius"], *(o.truth["einstein_radius"] for o in others)}) == 3


def test_pixels_without_an_arc_are_the_hosts_to_the_bit(
    painter: Painter, cutout: np.ndarray
) -> None:
    painted = paint(painter, cutout, source_magnitude=26.0)
    sky = noise_of(cutout)[:, None, None]
    is_arc = painted.arc > NEGLIGIBLE * sky
    assert painted.pixels.dtype == cutout.dtype
    assert is_arc.any()
    assert not is_arc.all()
    assert painted.pixels[~is_arc].tobytes() == cutout[~is_arc].tobytes()
    np.testing.assert_array_equal(painted.mask, (painted.arc > sky).any(axis=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_a_source_without_light_changes_no_bit(painter: Painter, dtype: type) -> None:
    cutout = (50 * galaxy(np.random.default_rng(3))).clip(0, 255).astype(dtype)
    painted = paint(painter, cutout, source_magnitude=200.0)
    assert painted.pixels.dtype == dtype
    assert painted.pixels.tobytes() == cutout.tobytes()
    assert not painted.mask.any()


def test_radius_and_magnitude_are_those_that_were_asked_for(
    painter: Painter, cutout: np.ndarray
) -> None:
    truth = paint(painter, cutout, einstein_radius=1.3, source_magnitude=24.2).truth
    assert truth["einstein_radius"] == 1.3
    assert truth["source_mag_i"] == pytest.approx(24.2, abs=1e-9)


def test_the_truth_tells_what_was_painted(painter: Painter, cutout: np.ndarray) -> None:
    painted = paint(painter, cutout)
    truth = painted.truth
    assert (truth["seeing_g"], truth["seeing_i"]) == (0.8, 0.6)
    assert truth["z_lens"] == 0.3
    assert truth["sigma_v"] == pytest.approx(270, rel=1e-6)
    for number, band in enumerate(BANDS):
        flux = painted.arc[number].sum()
        assert truth[f"arc_mag_{band}"] == pytest.approx(ZERO_POINT - 2.5 * np.log10(flux))
        # All of the light lies in the cutout, but for the wings of the PSF.
        lensed = truth[f"source_mag_{band}"] - 2.5 * np.log10(truth["magnification"])
        assert truth[f"arc_mag_{band}"] == pytest.approx(lensed, abs=0.05)


def test_a_host_that_is_too_light_is_told(painter: Painter, cutout: np.ndarray) -> None:
    with pytest.raises(CannotLensError):
        painter.paint(cutout, "a", CATALOGUE | {"sigma_v": 60.0})


# ---- noise ----


def test_the_arc_has_its_own_photon_noise_and_no_other() -> None:
    """Mean and variance of 20,000 pixels; five of their standard errors make 6e-7."""
    pixels = 20_000
    flux, gain = 0.05, 2000.0
    arc = np.full((1, 1, pixels), flux)
    host = np.zeros((1, 1, pixels))
    rng = np.random.default_rng(1)
    added = add_arc(rng, host, arc, np.array([SKY]), np.array([gain]))
    sigma = np.sqrt(flux / gain)
    assert added.mean() == pytest.approx(flux, abs=5 * sigma / np.sqrt(pixels))
    assert added.std() == pytest.approx(sigma, rel=5 / np.sqrt(2 * pixels))


def test_whole_numbers_are_rounded_and_cut() -> None:
    host = np.array([[[10, 250, 0]]], dtype=np.uint8)
    arc = np.array([[[5.0, 50.0, 0.0]]])
    added = add_arc(np.random.default_rng(0), host, arc, np.array([1.0]), np.array([1e12]))
    assert added.dtype == np.uint8
    assert added.tolist() == [[[15, 255, 0]]]


def test_half_precision_is_cut_at_its_end() -> None:
    host = np.full((1, 4, 4), 60_000, np.float16)
    arc = np.full(host.shape, 30_000.0)
    added = add_arc(np.random.default_rng(0), host, arc, np.array([1.0]), np.array([1.0]))
    assert added.dtype == np.float16
    np.testing.assert_array_equal(added, np.finfo(np.float16).max)


@pytest.mark.parametrize("magnitude", [-99.0, -9999.0, -1e300])
def test_an_arc_that_no_galaxy_could_make_is_told(
    painter: Painter, cutout: np.ndarray, magnitude: float
) -> None:
    with pytest.raises(UserError, match=r"more than 1e\+16 electrons.* sources\.magnitude"):
        paint(painter, cutout, source_magnitude=magnitude)


def test_signal_to_noise_of_an_even_arc() -> None:
    arc = np.full((2, 4, 4), 0.3)
    host = np.full((2, 4, 4), 0.1)
    sky, gains = np.array([0.2, 0.0]), np.array([10.0, 10.0])
    of_pixel = 0.3 / np.sqrt(sky**2 + 0.4 / 10)
    np.testing.assert_allclose(signal_to_noise(arc, host, sky, gains), 4 * of_pixel)
    nothing = np.zeros((2, 4, 4))
    assert np.isnan(signal_to_noise(nothing, nothing, np.zeros(2), gains)).all()


def test_contrast_is_that_within_two_einstein_radii() -> None:
    arc, host = np.zeros((2, 21, 21)), np.zeros((2, 21, 21))
    host[0, 10, 10], arc[0, 10, 14] = 4.0, 1.0
    arc[0, 0, 0] = 99.0  # far away
    ratio = flux_ratio(arc, host, (0.0, 0.0), einstein_radius=1.0, pixel_scale=0.5)
    assert ratio[0] == 0.25
    assert np.isnan(ratio[1])
    assert np.isnan(magnitudes(np.array([0.0]), np.array([27.0]))).all()


# ---- stamps ----


def write_stamp(file: Path, stamp: np.ndarray) -> str:
    fits.PrimaryHDU(stamp).writeto(file)
    return str(file)


def test_a_stamp_is_as_good_as_its_profile(
    manifest: Manifest, cutout: np.ndarray, tmp_path: Path
) -> None:
    for band, fwhm in (("g", 0.8), ("i", 0.6)):
        write_stamp(tmp_path / f"t1_{band}.fits", moffat_stamp(fwhm, 0.2))
    template = str(tmp_path / "{tile}_{band}.fits")
    by_stamp = Painter(recipe_of(psf={"g": template, "i": template}), manifest)
    by_profile = Painter(recipe_of(), manifest)

    stamped, expected = paint(by_stamp, cutout), paint(by_profile, cutout)
    np.testing.assert_allclose(stamped.arc, expected.arc, rtol=1e-6, atol=1e-9)
    # The pixels make the image of a star a little wider than the profile.
    assert stamped.truth["seeing_i"] == pytest.approx(0.6, rel=0.1)


@pytest.mark.parametrize(
    ("stamp", "said"),
    [
        (np.full((4, 4), 1 / 16), "odd size"),
        (np.full((5, 5), 1 / 5), "sums to 5, not 1"),
        (np.eye(1, 25, 2).reshape(5, 5), "centroid lies off"),
        (np.full((3, 5), 1 / 15), "square"),
    ],
)
def test_what_is_no_psf_is_refused(
    manifest: Manifest, cutout: np.ndarray, tmp_path: Path, stamp: np.ndarray, said: str
) -> None:
    file = write_stamp(tmp_path / "psf.fits", stamp)
    painter = Painter(recipe_of(psf={"g": 0.8, "i": file}), manifest)
    with pytest.raises(UserError, match=f"psf.fits: .*{said}"):
        paint(painter, cutout)


def test_files_that_hold_no_stamp_are_named(
    manifest: Manifest, cutout: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "text.fits").write_text("no image")
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    for name in ("text.fits", "empty.fits", "absent.fits"):
        painter = Painter(recipe_of(psf={"g": 0.8, "i": str(tmp_path / name)}), manifest)
        with pytest.raises(UserError, match=name):
            paint(painter, cutout)


def test_a_host_without_seeing_is_told(painter: Painter, cutout: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"psf\.i: seeing_i = nan is no FWHM"):
        painter.paint(cutout, "a", CATALOGUE | {"seeing_i": np.nan})
    assert cutout.shape == (2, SIZE, SIZE)
