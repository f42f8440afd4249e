"""Light that tests paint."""

from lens_hpc.sky.light import Light


def light(**changes: float) -> Light:
    values = {
        "x": 0.0,
        "y": 0.0,
        "q": 0.7,
        "phi": 0.4,
        "n": 1.0,
        "radius": 0.5,
        "mag_i": 20.0,
        "color_gi": 1.0,
    }
    return Light(**values | changes)
