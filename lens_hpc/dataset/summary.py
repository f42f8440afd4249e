"""Lines that tell an astronomer what a dataset is: what `print(dataset)` shows."""

from lens_hpc.dataset.manifest import Manifest, SplitRecord

FEATURES_SHOWN = 6


def classes_text(record: SplitRecord) -> str:
    """Count lenses and non-lenses of a split, and what has no label."""
    text = f"{record.lenses:,} lenses, {record.non_lenses:,} non-lenses"
    if record.unlabelled:
        text += f", {record.unlabelled:,} unlabelled"
    return text


def cutouts_text(manifest: Manifest) -> str:
    """Name bands, size in pixels and on the sky, and units."""
    scale = manifest.pixel_scale_arcsec
    height_arcsec = manifest.height * scale
    width_arcsec = manifest.width * scale

    bands = ", ".join(manifest.bands)
    pixels = f"{manifest.height} x {manifest.width} px"
    sky = f"{height_arcsec:.4g} x {width_arcsec:.4g} arcsec"
    return f"{bands}; {pixels}, {sky}; {manifest.units}"


def features_text(manifest: Manifest) -> str:
    """Name the first features, and count the others."""
    if not manifest.features:
        return "none"
    text = ", ".join(manifest.features[:FEATURES_SHOWN])
    others = len(manifest.features) - FEATURES_SHOWN
    if others > 0:
        text += f" and {others} more"
    return text
