"""weights: fetch timm's pretrained weights where there is internet, for nodes that have none."""

import logging
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from lens_hpc import UserError, config, files
from lens_hpc.logs import logger
from lens_hpc.model.fusion import pretrained_file


def run(config_file: Path, overrides: list[str]) -> None:
    """Download the weights of the config's backbone into its folder, unless they are there."""
    model = config.load(config.Weights, config_file, overrides).model
    file = pretrained_file(model)
    if model.weights != "pretrained":
        print(f"model.weights = {model.weights}: nothing to fetch")
    elif file.is_file():
        print(f"{file} is there already")
    else:
        files.make_folder(file.parent)
        with files.whole_file(file) as partial:
            save_file(download(model.backbone), partial)
        print(f"{file}: {file.stat().st_size / 1e6:,.0f} MB; training reads it with model.weights=pretrained")


def download(backbone: str) -> dict[str, torch.Tensor]:
    """timm's weights, as timm names them. UserError when there are none, or no way to them."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells each of its retries twice
    logger.info("fetching the weights of %s; without internet, giving up takes a minute or two", backbone)
    try:
        return timm.create_model(backbone, pretrained=True).state_dict()
    except Exception as error:  # timm and the hub fail in ways of their own
        raise UserError(
            f"model.backbone = {backbone}: its weights could not be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); run this on a machine with internet, or give model.weights=FILE"
        ) from error
