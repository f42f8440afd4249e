"""Weights in files: those of timm's backbones, fetched where there is internet, and of runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lens_hpc import config, files, logs
from lens_hpc.errors import UserError
from lens_hpc.layout import WEIGHTS
from lens_hpc.logs import logger
from lens_hpc.model import hub

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


def write_weights(
    file: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]
) -> None:
    """Write or replace a .safetensors file; the same weights and facts give the same bytes."""
    written = save(dict(tensors), metadata=dict(facts))

    # Its library writes the facts in another order each time. The format is the header's length in
    # 8 bytes, the header, and the tensors.
    header_end = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(written[8:header_end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    in_order = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    in_order += b" " * (-len(in_order) % 8)

    # The library's own file would be for its owner alone, and left behind by a kill.
    with files.whole_file(file) as partial, partial.open("wb") as opened:
        opened.write(len(in_order).to_bytes(8, "little") + in_order)
        opened.write(memoryview(written)[header_end:])


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

    if hub.comes_from_folder(settings.backbone):
        return _fetch_from_hub(settings)

    file = pretrained_file(settings)
    if file.is_file():
        return Fetched(file, f"{file} is there already")

    files.make_folder(file.parent)
    write_weights(file, download_weights(settings.backbone), {})
    size = f"{file.stat().st_size / 1e6:,.0f} MB"
    return Fetched(file, f"{file}: {size}; training reads it with model.weights=pretrained")


def _fetch_from_hub(settings: config.Model) -> Fetched:
    folder, is_new = hub.fetch_hub_model(settings)
    architecture = hub.with_architecture(settings).backbone
    what = "fetched" if is_new else "there already"
    text = f"{folder}: {what}, a {architecture}; training reads it with this model.backbone"
    return Fetched(folder / WEIGHTS, text)


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
