"""The model card: README.md of an export, as Hugging Face shows it."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from lens_hpc import files, layout
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.dataset.verdict import read_audit
from lens_hpc.exporting.description import Description
from lens_hpc.exporting.evaluations import Evaluated
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring.batches import needs_light

TEMPLATE = "card.md.j2"
CUTOUTS_SHOWN = 4
SEEN = {
    "fusion": "the cutout and features of the catalogue",
    "image": "the cutout alone",
    "features": "features of the catalogue alone, not the cutout",
}


class CardRow(NamedTuple):
    """A row of a table."""

    name: str
    value: str


def write_card(
    folder: Path,
    name: str,
    trained: TrainedModel,
    description: Description,
    evaluations: Collection[Evaluated],
    formats: Collection[str],
    license_name: str | None,
) -> None:
    """Write the card of a model into the folder of its export, where all else is already."""
    settings = trained.settings
    shape = CUTOUTS_SHOWN, len(description["bands"]), description["height"], description["width"]
    card = _fill_template(
        name=name,
        license_name=license_name,
        formats=formats,
        description=description,
        seen=SEEN[settings.model.inputs],
        zero_points=_zero_points(trained.manifest),
        needs_light=needs_light(trained),
        evaluations=evaluations,
        training=list(_describe_training(trained)),
        shape=shape,
        has_training_rows=(folder / layout.TRAINING_ROWS).exists(),
        own_code="" if settings.model.name == "fusion" else settings.model.name,
    )
    files.write_text(folder / layout.CARD, card)


def _fill_template(**parts: Any) -> str:
    environment = Environment(
        loader=PackageLoader("lens_hpc.exporting", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(**parts)


def _zero_points(manifest: Manifest) -> str:
    known = {band: value for band, value in manifest.zero_point.items() if value is not None}
    told = ", ".join(f"{value:g} in {band}" for band, value in known.items())
    return f"; zero points {told}" if told else ""


def _describe_training(trained: TrainedModel) -> Iterator[CardRow]:
    """Yield how the model was trained, and on what."""
    settings, manifest = trained.settings, trained.manifest
    model, loop = settings.model, settings.train
    for split, record in manifest.splits.items():
        yield CardRow(
            f"split {split}", f"{record.rows:,} objects, {record.lenses:,} of them lenses"
        )
    yield CardRow("audit of the dataset", _describe_audit(trained))

    if model.name != "fusion":
        yield CardRow("model", f"{model.name}, code of its author's own")
    elif model.inputs != "features":
        start = Path(model.weights).name
        yield CardRow("backbone", f"{model.backbone}, weights at the start: {start}")
    yield CardRow("training", f"{loop.epochs} epochs, {loop.global_batch_size} cutouts a step")
    if "epoch" in trained.facts:
        yield CardRow("weights", f"of epoch {trained.facts['epoch']}")
    yield CardRow("seed", str(loop.seed))


def _describe_audit(trained: TrainedModel) -> str:
    """Return the audit's verdict on the dataset, where that is still there."""
    folder = trained.settings.data.dataset
    if not (folder / layout.MANIFEST).is_file():
        return "unknown: the dataset was not there when this was exported"
    if not read_manifest(folder).is_of_same_rows(trained.manifest):
        return "unknown: the dataset was packed anew since"
    audit = read_audit(folder)
    return "none" if audit is None else f"{audit.verdict} ({audit.reasons})"
