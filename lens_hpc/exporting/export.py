"""Export a trained run: one folder that Finder.load, ONNX Runtime and PyTorch read.

1. The model of RUN/best or RUN/final becomes a graph from stored values to logits.
2. Weights, settings and manifest are written as RUN/best has them, so that Finder.load reads both.
3. The graph is written as ONNX and for torch.export, and ONNX Runtime must agree with PyTorch.
4. The card says what the run's evaluations and its dataset's audit have found.
"""

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from lens_hpc import config, files, layout
from lens_hpc.exporting.card import write_card
from lens_hpc.exporting.description import Description, as_texts, describe_inputs
from lens_hpc.exporting.evaluations import read_evaluations
from lens_hpc.exporting.formats import check_onnx, make_onnx, trace, write_torch
from lens_hpc.exporting.graph import ScoringGraph, example_inputs
from lens_hpc.holding import held
from lens_hpc.model.trained import TrainedModel, load_trained, save_trained, weights_folder
from lens_hpc.process import torch_unchanged
from lens_hpc.scoring.calibration import read_calibrations

EXAMPLES = 16
"""Cutouts that the graph is traced and checked with."""


@dataclass(frozen=True)
class Export:
    """An exported model."""

    folder: Path
    formats: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the terminal says."""
        graphs = {"onnx": layout.ONNX_MODEL, "torch": layout.TORCH_MODEL}
        written = ", ".join([layout.WEIGHTS, *(graphs[name] for name in self.formats)])
        return (
            f"{self.folder}: {written} and {layout.CARD}, the model card, which says how to use "
            f"them\nRead it before you share it, and say there what only you know.\n"
            f'Score with it: Finder.load("{self.folder}"), or lens-hpc predict {self.folder} ...'
        )


def export_run(
    run: Path,
    output: Path,
    weights: str,
    formats: Sequence[str],
    code: Collection[str],
    license_name: str | None,
) -> Export:
    """Export the `weights` (best, final or a FILE) of a run to the new folder `output`.

    `formats` are the graphs to write: onnx, torch. `code` names the packages that a model of one's
    own may come from. Raises UserError for a run without weights, a folder that exists, and a model
    that cannot be exported so.
    """
    trained = load_trained(weights_folder(run, weights), code)
    output = files.final_name(output)
    with held(output), files.whole_folder(output) as folder, torch_unchanged():
        description = _write_files(folder, trained, formats)
        epoch = trained.facts.get("epoch")
        evaluations = list(read_evaluations(run, weights, epoch, folder))
        write_card(
            folder,
            name=run.resolve().name,
            trained=trained,
            description=description,
            evaluations=evaluations,
            formats=formats,
            license_name=license_name,
        )
    return Export(output, tuple(formats))


def _write_files(folder: Path, trained: TrainedModel, formats: Collection[str]) -> Description:
    """Write all but the card, and return what the metadata of each file say."""
    (calibration,) = read_calibrations([trained])
    description = describe_inputs(trained, calibration)
    files.write_text(folder / layout.DESCRIPTION, json.dumps(description, indent=1) + "\n")

    settings = _without_places(trained.settings)
    facts = trained.facts | as_texts(description)
    save_trained(folder, trained.model, settings, trained.manifest, facts)
    for name in (layout.CALIBRATION, layout.TRAINING_ROWS):
        if (trained.folder / name).is_file():
            shutil.copyfile(trained.folder / name, folder / name)

    if formats:
        _write_graphs(folder, trained, formats, description)
    return description


def _write_graphs(
    folder: Path, trained: TrainedModel, formats: Collection[str], description: Description
) -> None:
    """Write the graph from stored values to logits."""
    graph = ScoringGraph(trained)
    inputs = example_inputs(trained, EXAMPLES)
    program = trace(graph, inputs)
    if "torch" in formats:
        write_torch(folder / layout.TORCH_MODEL, program, description)
    if "onnx" in formats:
        model = make_onnx(program, inputs, as_texts(description))
        check_onnx(model, graph, inputs)
        (folder / layout.ONNX_MODEL).write_bytes(model)


def _without_places(settings: config.Train) -> config.Train:
    """Return settings that do not tell where on somebody's disks files lay."""
    data = {"dataset": Path(settings.data.dataset.name), "stage_to": None}
    model = {"weights": Path(settings.model.weights).name, "weights_folder": Path("weights")}
    changes = {
        "run": Path(settings.run.name),
        "data": settings.data.model_copy(update=data),
        "model": settings.model.model_copy(update=model),
    }
    return settings.model_copy(update=changes)
