import pytest

from lens_hpc.dataset.bands import by_wavelength


@pytest.mark.parametrize(
    ("bands", "ordered"),
    [
        (["R", "I", "G", "U"], ["U", "G", "R", "I"]),  # Bologna challenge 1, ground
        (["VIS", "J", "Y", "H"], ["VIS", "Y", "J", "H"]),  # Bologna challenge 2
        (["u", "g", "r", "i", "z", "y"], ["u", "g", "r", "i", "z", "y"]),
        (["y", "J", "z", "Y"], ["z", "y", "Y", "J"]),
        (["NIR_H", "NIR_Y", "VIS", "NIR_J"], ["VIS", "NIR_Y", "NIR_J", "NIR_H"]),
        (
            ["VIS_BGSUB", "NIR_Y_BGSUB", "DES_G_BGSUB", "DES_Z_BGSUB"],
            ["DES_G_BGSUB", "VIS_BGSUB", "DES_Z_BGSUB", "NIR_Y_BGSUB"],
        ),
        (["F814W", "F475W", "F606W"], ["F475W", "F606W", "F814W"]),  # HST: nm
        (["F160W", "F814W", "F125W"], ["F814W", "F125W", "F160W"]),  # HST: 10 nm below 200
        (["F444W", "F115W", "F277W", "F150W"], ["F115W", "F150W", "F277W", "F444W"]),  # JWST
        (["F770W", "F775W"], ["F775W", "F770W"]),  # of MIRI and of ACS
        (["HST-F606W", "hsc.i", "Ks"], ["HST-F606W", "hsc.i", "Ks"]),
        (["a", "c", "b"], ["a", "c", "b"]),
        (["r", "g", "mask"], ["r", "g", "mask"]),
        (["Band3", "Band1"], ["Band3", "Band1"]),
        (["r"], ["r"]),
    ],
)
def test_bands_are_ordered_where_all_are_known(bands: list[str], ordered: list[str]) -> None:
    assert [bands[number] for number in by_wavelength(bands)] == ordered
