"""Train two steps of every `test_*` family of timm under DDP, in the processes of one launch.

    accelerate launch ... tests/integration/train_every_family.py DATASET

It prints a line for each family and memory format: `ok`, or what went wrong.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["ACCELERATE_USE_CPU"] = "true"  # else each process would believe that it is alone

import timm
import torch
from accelerate import Accelerator
from accelerate.utils import gather

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.trainer import make_trainer, train_step

STEPS = 2


def settings_for(dataset: Path, backbone: str, channels_last: bool) -> config.Train:
    return config.Train(
        run=Path(tempfile.gettempdir()) / "no-run",
        data=config.Data(dataset=dataset, workers=0),
        augment=config.Augment(engine="torch"),
        model=config.Model(backbone=backbone, weights="none", conv_channels=(16, 8)),
        train=config.Loop(global_batch_size=8, channels_last=channels_last, trackers=()),
    )


def try_family(accelerator: Accelerator, settings: config.Train) -> str:
    """Train, and return what is wrong with the result; nothing when all is well."""
    manifest = read_manifest(settings.data.dataset)
    with make_trainer(settings, accelerator, manifest) as trainer:
        model: Any = accelerator.unwrap_model(trainer.model)
        before = [one.detach().clone() for one in model.parameters()]
        batches = trainer.train_loader(0, trainer.shares(0))
        for step in range(STEPS):
            train_step(trainer, step, batches)

        for (name, one), old in zip(model.named_parameters(), before, strict=True):
            ranks = gather(one.detach()[None])
            if not (ranks == ranks[:1]).all():
                return f"{name} differs between processes"
            if one.requires_grad == torch.equal(one, old):
                return f"{name}: requires_grad is {one.requires_grad}, and yet it has not changed"
    return ""


def main(dataset: Path) -> None:
    accelerator_settings = settings_for(dataset, "test_resnet", channels_last=False)
    with accelerator_session(accelerator_settings) as accelerator:
        for backbone in timm.list_models("test_*"):
            for channels_last in (False, True):
                settings = settings_for(dataset, backbone, channels_last)
                try:
                    problem = try_family(accelerator, settings)
                except RuntimeError as error:  # DDP's complaint, with the name of the family
                    problem = str(error)
                accelerator.free_memory()
                if accelerator.is_main_process:
                    print(backbone, channels_last, problem or "ok", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
