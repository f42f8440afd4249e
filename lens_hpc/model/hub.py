"""Backbones that others have pre-trained, on galaxies for instance, as the Hugging Face hub and
timm's save_for_hf keep them:

    FOLDER/config.json         timm's name of the architecture, bands and classes
    FOLDER/model.safetensors   weights

model.backbone=hf_hub:OWNER/NAME means the folder that `lens-hpc weights` has fetched, and
local-dir:FOLDER any other. A run keeps the architecture's name, so that it is loaded without them.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import nn

from lens_hpc import config, files
from lens_hpc.errors import UserError
from lens_hpc.holding import held
from lens_hpc.layout import WEIGHTS
from lens_hpc.logs import logger

HUB = ("hf_hub", "hf-hub")
SOURCES = (*HUB, "local-dir")
HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w.-]+))?", re.ASCII)

HUB_CONFIG = "config.json"
NOT_OF_THE_ARCHITECTURE = {
    "in_chans",
    "num_classes",
    "img_size",
    "global_pool",
    "drop_rate",
    "drop_path_rate",
    "proj_drop_rate",
    "attn_drop_rate",
}
"""Arguments of a saved model that lens_hpc chooses itself, or that have no weights."""


class HubModel(NamedTuple):
    """What a folder of the hub says of its weights."""

    architecture: str
    """As timm names it."""
    bands: int
    classes: int


def comes_from_folder(backbone: str) -> bool:
    """Whether the name of a backbone is that of a folder, here or on the hub."""
    return backbone.partition(":")[0] in SOURCES


def is_hub_folder(folder: Path) -> bool:
    """Whether a folder is one of the hub, and no run."""
    return (folder / HUB_CONFIG).is_file()


def with_architecture(settings: config.Model) -> config.Model:
    """Return settings that name the architecture itself, in place of a folder that says which.

    Its weights are that folder, where the settings ask for pre-trained ones. Raises UserError for a
    folder that is not there, damaged, or of another kind.
    """
    if not comes_from_folder(settings.backbone):
        return settings
    folder = _folder_of(settings)
    if not folder.is_dir():
        raise UserError(
            f"model.backbone = {settings.backbone}: {folder} is not there; on a machine with "
            "internet run lens-hpc weights CONFIG, or copy the folder of the backbone there"
        )
    architecture = read_hub_model(folder).architecture
    weights = str(folder) if settings.weights == "pretrained" else settings.weights
    return settings.model_copy(update={"backbone": architecture, "weights": weights})


def _folder_of(settings: config.Model) -> Path:
    source, _, name = settings.backbone.partition(":")
    if source in HUB:
        _split_hub_name(settings.backbone)  # for its errors
        # Each revision has a folder of its own.
        return settings.weights_folder / name
    return files.expand(name)


def _split_hub_name(backbone: str) -> tuple[str, str | None]:
    """Return OWNER/NAME and the revision, None for the newest."""
    found = HUB_NAME.fullmatch(backbone.partition(":")[2])
    if found is None:
        raise UserError(
            f"model.backbone = {backbone}: must be hf_hub:OWNER/NAME, as the address of the model "
            "on the Hugging Face hub ends"
        )
    return found[1], found[2]


# ---- reading ----


def read_hub_model(folder: Path) -> HubModel:
    """Read what a folder holds. Raises UserError where it cannot be used."""
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder}: holds no {WEIGHTS}; other files of weights are pickles, which may run "
            "code. Ask its author for it, or convert a file that you trust, with "
            "timm.models.save_for_hf(model, FOLDER, safe_serialization=True)"
        )
    file = folder / HUB_CONFIG
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        # Older folders have all in one level.
        trained = tree.get("pretrained_cfg", tree)
        arguments = tree.get("model_args") or {}
        bands = arguments.get("in_chans") or trained.get("input_size", (3,))[0]
        classes = tree.get("num_classes", trained.get("num_classes", 0))
        model = HubModel(str(tree["architecture"]), int(bands), int(classes))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file}: is damaged, or not of a timm model ({type(error).__name__}: {error}); fetch "
            "the folder again"
        ) from error
    _check_arguments(file, arguments)
    return model


def _check_arguments(file: Path, arguments: dict[str, Any]) -> None:
    """Raise UserError for a model that is not built by its architecture's name alone."""
    own = sorted(arguments.keys() - NOT_OF_THE_ARCHITECTURE)
    if own:
        raise UserError(
            f"{file}: its model has {', '.join(own)} of its own, beside what its architecture's "
            "name says, and cannot be built so; choose another model.backbone"
        )


def weight_options(folder: Path, backbone: str) -> dict[str, Any]:
    """Return what timm is told to start a backbone from a folder's weights.

    timm adapts them to another number of bands, and leaves a classifier out. Raises UserError for
    weights of another architecture.
    """
    model = read_hub_model(folder)
    if model.architecture.partition(".")[0] != backbone.partition(".")[0]:
        raise UserError(
            f"model.weights = {folder}: are those of {model.architecture}; choose "
            f"model.backbone={model.architecture}"
        )
    overlay = {
        "file": str(folder / WEIGHTS),
        "source": "",
        "custom_load": False,
        "input_size": (model.bands, 1, 1),
        "num_classes": model.classes,
        "label_offset": 0,
    }
    return {"pretrained": True, "pretrained_cfg_overlay": overlay}


def check_all_there(folder: Path, backbone: nn.Module, names: set[str]) -> None:
    """Raise UserError unless weights have all `names` that a backbone needs.

    timm leaves what is missing as it was drawn.
    """
    absent = sorted(name for name, _ in backbone.named_parameters() if name not in names)
    if absent:
        raise UserError(
            f"{folder / WEIGHTS}: lacks {len(absent)} tensors of the backbone, such as "
            f"{absent[0]}: it is of another model than its {HUB_CONFIG} says; fetch it again"
        )


# ---- fetching ----


def fetch_hub_model(settings: config.Model) -> tuple[Path, bool]:
    """Fetch a backbone's folder from the hub, unless it is there.

    Returns it, and whether it is new. Raises UserError when it cannot be had.
    """
    folder = _folder_of(settings)
    if folder.is_dir() or settings.backbone.partition(":")[0] not in HUB:
        return folder, False

    repository, revision = _split_hub_name(settings.backbone)
    logger.info("fetching %s from the Hugging Face hub", repository)
    files.make_folder(folder.parent)
    with held(folder), files.whole_folder(folder) as aside:
        for name in (HUB_CONFIG, WEIGHTS):
            shutil.copyfile(_download(settings.backbone, repository, name, revision), aside / name)
        read_hub_model(aside)
    return folder, True


def _download(backbone: str, repository: str, name: str, revision: str | None) -> str:
    try:
        return hf_hub_download(repository, name, revision=revision)
    except EntryNotFoundError as error:
        raise UserError(
            f"model.backbone = {backbone}: has no {name} on the hub, and lens_hpc reads no other "
            "weights, as pickles may run code; choose another"
        ) from error
    except Exception as error:  # the hub fails in ways of its own
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"model.backbone = {backbone}: {name} could not be fetched ({type(error).__name__}: "
            f"{reason}); run this on a machine with internet, or copy the folder to where "
            "model.backbone=local-dir:FOLDER names it"
        ) from error
