import errno
import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lens_hpc.errors import UserError
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_files import open_mosaic
from tests.packing.mosaic_surveys import Storage, make_header, noise, write_mosaic

SHAPE = (50, 70)


def test_a_plain_mosaic_is_mapped_and_not_read(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), make_header(SHAPE))
    with open_mosaic(path) as mosaic:
        pixels = mosaic.plane(None).map(is_sparse=True)
        assert isinstance(pixels.base, np.memmap)
        np.testing.assert_array_equal(pixels, noise(SHAPE))


def test_a_gzipped_mosaic_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    path = write_mosaic(tmp_path / "g.fits.gz", noise(SHAPE), make_header(SHAPE), "gzip")
    with open_mosaic(path) as mosaic:
        assert list(folder.iterdir()) == []
        np.testing.assert_array_equal(mosaic.plane(None).map(is_sparse=False), noise(SHAPE))


def test_a_gzipped_mosaic_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "g.fits.gz", noise(SHAPE), make_header(SHAPE), "gzip")
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(BadCutoutError, match=r"\.gz: cannot be read as a mosaic: it is cut off"):
        open_mosaic(path).__enter__()


def test_a_full_disk_is_no_fault_of_the_mosaic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mosaic(tmp_path / "g.fits.gz", noise(SHAPE), make_header(SHAPE), "gzip")

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(UserError, match=r"has no room to unzip .*g\.fits\.gz; make room there"):
        open_mosaic(path).__enter__()


def test_axes_of_length_one_are_left_out(tmp_path: Path) -> None:
    pixels = noise(SHAPE)[None]
    fits.PrimaryHDU(pixels).writeto(tmp_path / "g.fits")
    rice = fits.CompImageHDU(pixels, compression_type="GZIP_1", quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), rice]).writeto(tmp_path / "r.fits")
    with open_mosaic(tmp_path / "g.fits") as mosaic:
        np.testing.assert_array_equal(mosaic.plane(None).map(is_sparse=False), pixels[0])

    with open_mosaic(tmp_path / "r.fits") as mosaic:
        plane = mosaic.plane(None)
        is_needed = np.ones(SHAPE[0], dtype=bool)
        np.testing.assert_array_equal(plane.decompress(0, is_needed), pixels[0])
        is_needed[3:10] = False
        found = plane.decompress(0, is_needed)
        np.testing.assert_array_equal(found[is_needed], pixels[0][is_needed])


@pytest.mark.parametrize(("side", "storage"), [(0, "rice"), (10**12, "rice"), (10**12, "plain")])
def test_a_side_that_no_mosaic_has_is_told(tmp_path: Path, side: int, storage: Storage) -> None:
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), make_header(SHAPE), storage)
    word = b"NAXIS2  =" if storage == "plain" else b"ZNAXIS2 ="
    content = path.read_bytes()
    place = content.index(word)
    card = word + f"{side:>21}".encode() + b" " * 50
    path.write_bytes(content[:place] + card + content[place + 80 :])
    with (
        pytest.raises(BadCutoutError, match=r"g\.fits: .*(longer than 1,048,576|Invalid argument)"),
        open_mosaic(path) as mosaic,
    ):
        mosaic.plane(0 if storage == "plain" else 1)


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("word", ["BSCALE", "BZERO", "BLANK"])
def test_a_header_with_text_for_a_number_is_told(tmp_path: Path, word: str) -> None:
    header = make_header(SHAPE)
    header[word] = "much"
    path = tmp_path / "g.fits"
    image = fits.PrimaryHDU(np.zeros(SHAPE, np.int16), header, do_not_scale_image_data=True)
    image.header[word] = "much"
    image.writeto(path, output_verify="ignore")
    with (
        open_mosaic(path) as mosaic,
        pytest.raises(BadCutoutError, match=rf"g\.fits\[0\]: {word} = 'much' is not a number"),
    ):
        mosaic.plane(None)


def test_a_header_whose_cards_are_out_of_place_is_told(tmp_path: Path) -> None:
    """It lost a byte, and has another one before its end: to astropy it is an HDU of no kind."""
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), make_header(SHAPE))
    content = path.read_bytes()
    end = content.index(b"END" + 77 * b" ")
    path.write_bytes(content[:6] + content[7:end] + b" " + content[end:])
    told = r"g\.fits: cannot be read as a mosaic: AttributeError"
    with pytest.raises(BadCutoutError, match=told), open_mosaic(path):
        pass


@pytest.mark.parametrize("hdu", ["SCI", 7])
def test_an_hdu_that_is_not_there_is_told(tmp_path: Path, hdu: str | int) -> None:
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), make_header(SHAPE))
    with open_mosaic(path) as mosaic, pytest.raises(BadCutoutError, match=rf"g\.fits: .*{hdu}"):
        mosaic.plane(hdu)


@pytest.mark.parametrize("storage", ["plain", "rice"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_mosaic_that_is_cut_off_is_told(tmp_path: Path, storage: str, share: float) -> None:
    path = write_mosaic(tmp_path / "g.fits", noise((200, 200)), make_header((200, 200)), storage)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with (
        open_mosaic(path) as mosaic,
        pytest.raises(BadCutoutError, match=r"g\.fits: is cut off: .* fetch it again"),
    ):
        mosaic.plane(None).check_length()


@pytest.mark.parametrize("lost", [0, 3, 40])
def test_rice_that_is_damaged_within_is_told_or_read(tmp_path: Path, lost: int) -> None:
    """Nothing but our own error comes out of a file with bytes that are changed."""
    path = write_mosaic(tmp_path / "g.fits", noise((200, 200)), make_header((200, 200)), "rice")
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(lost)
    for place in rng.integers(6000, len(content), lost):
        content[place] = rng.integers(256)
    path.write_bytes(content)
    try:
        with open_mosaic(path) as mosaic:
            mosaic.plane(None).decompress(0, np.ones(200, dtype=bool))
    except BadCutoutError:
        assert lost


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lens_hpc.packing.mosaic_files.MOST_UNZIPPED", 1 << 20)
    path = tmp_path / "g.fits.gz"
    path.write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(BadCutoutError, match=r"would unpack to .* mend or remove it"):
        open_mosaic(path).__enter__()


def test_another_packer_than_gzip_is_told(tmp_path: Path) -> None:
    path = tmp_path / "g.fits"
    path.write_bytes(b"BZh91AY")
    with pytest.raises(BadCutoutError, match=r"packed by another program than gzip; unpack it"):
        open_mosaic(path).__enter__()
