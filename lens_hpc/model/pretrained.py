"""Weights in files: those of timm's backbones, fetched where there is internet, and of runs."""

from pathlib import Path
from typing import NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lens_hpc import config, files, logs
from lens_hpc.errors import UserError
from lens_hpc.logs import logger

LONGEST_SHOWN = 300


class Weights(NamedTuple):
    """What a .safetensors file holds."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, str]
    """Its metadata."""


def read_weights(file: Path) -> Weights:
    """Read a .safetensors file. Raises UserError when it is damaged."""
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return Weights(tensors, opened.metadata() or {})
    # Its library has an error for a damaged file, and the others come from types and sizes that it
    # says to have.
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file}: is damaged ({str(error)[:LONGEST_SHOWN]}); copy it again, or train anew"
        ) from error


class Fetched(NamedTuple):
    """Where the weights of a backbone are, and what was done to get them."""

    file: Path | None
    """None for a model that starts from other weights than timm's."""
    text: str


def pretrained_file(settings: config.Model) -> Path:
    """Return where timm's weights of the backbone lie."""
    return settings.weights_folder / f"{settings.backbone}.safetensors"


def fetch_weights(settings: config.Model) -> Fetched:
    """Download the weights of a model's backbone into its folder, unless they are there."""
    if settings.weights != "pretrained":
        return Fetched(None, f"model.weights = {settings.weights}: nothing to fetch")

    file = pretrained_file(settings)
    if file.is_file():
        return Fetched(file, f"{file} is there already")

    files.make_folder(file.parent)
    with files.whole_file(file) as partial:
        save_file(download_weights(settings.backbone), partial)
    size = f"{file.stat().st_size / 1e6:,.0f} MB"
    return Fetched(file, f"{file}: {size}; training reads it with model.weights=pretrained")


def download_weights(backbone: str) -> dict[str, torch.Tensor]:
    """Return timm's weights, as timm names them. Raises UserError when they cannot be had."""
    logger.info(
        "fetching the weights of %s; without internet, giving up takes a minute or two", backbone
    )
    # The hub tells of each of its retries twice.
    with logs.quieted("huggingface_hub"), torch.random.fork_rng(devices=[]):
        try:
            return timm.create_model(backbone, pretrained=True).state_dict()
        except Exception as error:  # timm and the hub fail in ways of their own
            raise UserError(
                f"model.backbone = {backbone}: its weights could not be fetched "
                f"({type(error).__name__}: {str(error).splitlines()[0]}); run this on a machine "
                "with internet, or give model.weights=FILE"
            ) from error
