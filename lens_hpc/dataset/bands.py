"""Bands in the order of their wavelength, where their names tell it."""

import re
from collections.abc import Sequence

WAVELENGTHS_NM = {
    "FUV": 154,
    "NUV": 232,
    "U": 360,
    "B": 440,
    "G": 480,
    "V": 550,
    "R": 620,
    "VIS": 715,
    "I": 760,
    "Z": 890,
    "Y": 1020,
    "J": 1250,
    "H": 1650,
    "K": 2190,
    "KS": 2160,
    "W1": 3350,
    "W2": 4600,
    "W3": 11600,
    "W4": 22100,
}
"""Centres of broad bands, rounded: surveys differ by some per cent, and the order is the same."""

RUBIN_Y_NM = 970
"""The y of optical cameras, in small letters, lies before the Y of infrared ones."""

LONG_FILTER = re.compile(
    r"F(200W|210M|212N|250M|277W|300M|322W2|323N|335M|356W|360M|405N|410M|430M|444W|460M|466N|470N"
    r"|480M|560W|770W|1000W|1065C|1130W|1140C|1280W|1500W|1550C|1800W|2100W|2300C|2550W)"
)
"""Filters of JWST whose number is in units of 10 nm, as are all below 200; the rest is in nm."""

SPACE_FILTER = re.compile(r"F(\d{3,4})(?:W2|LP|[WMNXC])")


def by_wavelength(bands: Sequence[str]) -> list[int]:
    """Return the numbers of the bands from the shortest wavelength to the longest.

    That is the order given where a band's name does not tell its wavelength. A name may have parts
    around it, as in NIR_Y_BGSUB, SDSS_R or HST-F606W.
    """
    numbers = list(range(len(bands)))
    wavelengths = [wavelength_nm(band) for band in bands]
    if None in wavelengths:
        return numbers
    return sorted(numbers, key=lambda number: wavelengths[number] or 0)


def wavelength_nm(band: str) -> float | None:
    """Return the centre of a band by its name; None where it does not tell. *Unit: nm*"""
    for part in reversed(re.split(r"[^A-Za-z0-9]+", band)):
        name = part.upper()
        if part == "y":
            return RUBIN_Y_NM
        if name in WAVELENGTHS_NM:
            return WAVELENGTHS_NM[name]

        match = SPACE_FILTER.fullmatch(name)
        if match:
            number = int(match.group(1))
            return number * 10 if number < 200 or LONG_FILTER.fullmatch(name) else number
    return None
