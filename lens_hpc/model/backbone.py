"""The backbone: any timm model without its classifier, and the weights that it starts from."""

from typing import Any

import timm

from lens_hpc import config, files
from lens_hpc.errors import UserError
from lens_hpc.layout import WEIGHTS
from lens_hpc.model import hub
from lens_hpc.model.pretrained import pretrained_file, read_weights

# Backbones of fixed size see the cutout on a canvas of sky (zeros) whose sides are multiples of
# this,
# so that their patches and windows divide it.
CANVAS_MULTIPLE = 32

NAMES_SHOWN = 5


def make_backbone(
    settings: config.Model, bands: int, size: tuple[int, int]
) -> tuple[Any, tuple[int, int]]:
    """Make a timm model without its classifier.

    Returns it with the (height, width) of the images that it takes, in pixels: `size` or a little
    more. Raises UserError when timm has no such model, or no weights for it.
    """
    _check_name(settings.backbone)
    options: dict[str, Any] = {"in_chans": bands, "num_classes": 0}
    options |= _weight_options(settings)

    pretrained = timm.get_pretrained_cfg(settings.backbone, allow_unregistered=True)
    if pretrained is not None and pretrained.fixed_input_size:
        size = (_round_up(size[0]), _round_up(size[1]))
        options["img_size"] = size

    try:
        backbone = timm.create_model(settings.backbone, **options)
    except Exception as error:  # timm's models fail in ways of their own
        if settings.weights == "none":
            raise UserError(
                f"model.backbone = {settings.backbone}: cannot be built for "
                f"{size[0]} x {size[1]} px: {error}"
            ) from error
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"model.weights = {settings.weights}: no weights for {settings.backbone} could be "
            f"loaded ({type(error).__name__}: {reason}); give another "
            "model.weights=FILE, or train from scratch with model.weights=none"
        ) from error

    start = files.expand(settings.weights)
    if hub.is_hub_folder(start):
        hub.check_all_there(start, backbone, set(read_weights(start / WEIGHTS).tensors))
    return backbone, size


def _check_name(backbone: str) -> None:
    if timm.is_model(backbone):
        return
    family = backbone.split("_")[0]
    near = timm.list_models(f"*{family}*") or timm.list_models("resnet*")
    raise UserError(
        f"model.backbone = {backbone}: timm has no such model; it has "
        f"{', '.join(near[:NAMES_SHOWN])}, ...; from a hub, write hf_hub:OWNER/NAME"
    )


def _round_up(side: int) -> int:
    return -(-side // CANVAS_MULTIPLE) * CANVAS_MULTIPLE


def _weight_options(settings: config.Model) -> dict[str, Any]:
    """Return what timm is told about the weights to start from."""
    if settings.weights == "none":
        return {"pretrained": False}

    wants_timms = settings.weights == "pretrained"
    file = pretrained_file(settings) if wants_timms else files.expand(settings.weights)
    if hub.is_hub_folder(file):
        return hub.weight_options(file, settings.backbone)
    if file.is_file():
        return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    if wants_timms:
        raise UserError(
            f"model.weights = pretrained: {file} is not there; on a machine with internet run "
            "lens-hpc weights CONFIG, or train from scratch with model.weights=none"
        )
    raise UserError(
        f"model.weights = {settings.weights}: no such file; valid: none, pretrained, a FILE or a "
        "RUN"
    )
