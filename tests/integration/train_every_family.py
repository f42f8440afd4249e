"""Train two steps of every `test_*` family of timm under DDP, in the processes of one launch.

    accelerate launch ... tests/integration/train_every_family.py DATASET

It prints a line for each family and memory format: `ok`, or what went wrong. So does a model of
one's own, of which each step uses another part.
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
from torch import nn

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.trainer import make_trainer, train_step

STEPS = 2
OWN = "train_every_family.Experts"


class Experts(nn.Module):
    """Two of three experts are used, in turn."""

    def __init__(self, settings: config.Model, bands: int, *_: Any) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(bands, 1) for _ in range(3)])
        self.calls = 0

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        expert = self.experts[self.calls % 2]
        return expert(images.mean((2, 3)))[:, 0]


def settings_for(dataset: Path, backbone: str, channels_last: bool) -> config.Train:
    return config.Train(
        run=Path(tempfile.gettempdir()) / "no-run",
        data=config.Data(dataset=dataset, workers=0),
        augment=config.Augment(engine="torch"),
        model=config.Model(
            name=OWN if backbone == OWN else "fusion",
            backbone=backbone,
            weights="none",
            conv_channels=(16, 8),
        ),
        code=("train_every_family",),
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
            is_used = one.requires_grad and not name.startswith("experts.2")
            if is_used == torch.equal(one, old):
                return f"{name}: used is {is_used}, and changed is {not is_used}"
    return ""


def main(dataset: Path) -> None:
    accelerator_settings = settings_for(dataset, "test_resnet", channels_last=False)
    with accelerator_session(accelerator_settings) as accelerator:
        for backbone in (*timm.list_models("test_*"), OWN):
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
