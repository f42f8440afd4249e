"""Train one run after another, under DDP or DeepSpeed, in the processes of one launch.

    accelerate launch ... tests/integration/train_in_a_row.py CONFIG TRAININGS.json

The JSON file lists [stage, settings]: a stage of ZeRO, or 0 for DDP; a run may come several times,
and goes on. Fails, with the name of the run, where gradients are not added up in float32.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

import lens_hpc
from lens_hpc import config
from lens_hpc.training import deepspeed, loop, trainer


def train(config_file: Path, stage: int, settings: dict[str, Any]) -> None:
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_USE_DEEPSPEED"):
        os.environ.pop(name, None)
    if stage == 0:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    else:
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(stage)
    lens_hpc.train(config_file, **settings)


def make_checked_trainer(settings: config.Train, *others: Any) -> trainer.Trainer:
    made = trainer.make_trainer(settings, *others)
    if deepspeed.is_used():
        buckets = made.optimizer.optimizer.ipg_buckets
        assert buckets.keys() == {torch.float32}, f"{settings.run}: {buckets.keys()}"
    return made


if __name__ == "__main__":
    loop.make_trainer = make_checked_trainer
    for stage, settings in json.loads(Path(sys.argv[2]).read_text()):
        train(Path(sys.argv[1]), stage, settings)
