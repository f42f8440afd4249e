"""The settings of training, in small groups.

`TrainSettings` is what `lens-hpc train` reads, and what a run keeps in its config.yaml: `train`,
`check`, `bench` and `weights` share it. Every default of the model is its author's, but for the
scaling of features: his is in configs/train/resnet50.yaml.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from lens_hpc import layout
from lens_hpc.settings import FilePath, Probability, Settings, WordOrPath


def _known_or_own(*known: str) -> AfterValidator:
    """Make a validator of names: one that is known, or a dotted one of the user's own code."""

    def validate(name: str) -> str:
        if name not in known and "." not in name:
            valid = ", ".join(known)
            raise ValueError(f"must be {valid}, or mypackage.module.Name: got {name}")
        return name

    return AfterValidator(validate)


class Data(Settings):
    """Where samples come from."""

    dataset: FilePath
    """Folder of the packed dataset."""
    image_scale: Literal["cutout", "split", "asinh"] = "cutout"
    """Divide pixels by the maximum of their cutout, or by that of the whole training split; or
    asinh: their inverse hyperbolic sine in units of the sky's noise, so that a bright centre leaves
    faint arcs their contrast."""
    shuffle: Literal["full", "blocks"] = "full"
    """A true permutation, or runs of 64 rows mixed in windows of 8192, for storage that is slow at
    random reads."""
    balance: Literal["none", "oversample"] = "none"
    """Each sample once an epoch, or samples of the rarer class repeated until both classes are
    equally frequent."""
    last: Literal["drop", "keep"] = "drop"
    """What happens to the last step of an epoch when too few samples are left for it."""
    workers: NonNegativeInt = 2
    """Threads that load for each training process, or processes where albumentations or compressed
    shards need them; 0: none."""
    verify: Literal["header", "full"] = "header"
    """Before the first step, check size and header of every shard, or every byte."""
    stage_to: WordOrPath | None = None
    """Folder on a disk of each node to copy its shards to, such as $SLURM_TMPDIR; null: read them
    where they are."""


class Augment(Settings):
    """Augmentation of training cutouts: the author's three, and extras that are off at first."""

    engine: Annotated[str, _known_or_own("albumentations", "torch")] = "albumentations"
    """albumentations (a cutout at a time) | torch (a batch at a time on the model's device, which
    is faster) | mypackage.module.MyAugmentation, with code=[mypackage]."""
    hflip: Probability = 0.3
    """Horizontal flip."""
    vflip: Probability = 0.3
    """Vertical flip."""
    blur: Probability = 0.3
    """AdvancedBlur: a random generalised Gaussian kernel of 3 to 7 pixels."""
    rotate90: Probability = 0.0
    """Extra: rotation by 90, 180 or 270 degrees."""
    shift: NonNegativeInt = 0
    """Extra: shift by up to so many whole pixels along each axis."""
    noise: NonNegativeFloat = 0.0
    """Extra: Gaussian noise of this standard deviation, in normalised pixels (1 is the maximum)."""


class Model(Settings):
    """The fusion model; every default is its author's, but for the scaling of features."""

    name: Annotated[str, _known_or_own("fusion")] = "fusion"
    """fusion | mypackage.module.MyModel, with code=[mypackage]."""
    inputs: Literal["fusion", "image", "features"] = "fusion"
    """Train both branches, or one alone: the ablation."""
    backbone: str = "resnet50"
    """Any timm model | hf_hub:OWNER/NAME, pre-trained by others, on galaxies for instance, as
    `lens-hpc weights` fetched it from the Hugging Face hub | local-dir:FOLDER, such a folder."""
    weights: WordOrPath = "pretrained"
    """none | pretrained (timm's, as `lens-hpc weights` fetched them) | a FILE of weights for the
    backbone | a RUN, or one of its folders, to start from its whole model; tensors that have
    another shape there are initialised anew."""
    weights_folder: FilePath = Path("weights")
    """Where `lens-hpc weights` puts timm's files, and where training reads them."""
    norm: Literal["batch", "layer"] = "batch"
    """Normalisation around the Conv1d blocks: over the batch as the author has it, or within each
    sample. With a backbone without BatchNorm, the second makes the result independent of how
    processes share a batch."""
    conv_channels: tuple[PositiveInt, PositiveInt] = (512, 256)
    """Channels of the two Conv1d blocks over the backbone's positions."""
    conv_kernel: Annotated[int, Field(ge=1)] = 3
    """Their kernel, positions; odd."""
    attention_channels: PositiveInt = 128
    """Hidden channels of the spatial attention."""
    feature_channels: tuple[PositiveInt, PositiveInt] = (128, 256)
    """Units of the two fully connected layers for the catalogue features."""
    feature_scaling: Literal["robust", "minmax"] = "robust"
    """By training's median and half of its width from 16 to 84 %, cut at 5 sigma; or by its minimum
    and maximum as the author has it, which a single outlier spoils."""
    missing_indicator: bool = True
    """For each feature of which training has missing values, one more input that is 1 where the
    value is missing, else 0."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of a model of your own, which reads them."""

    @model_validator(mode="after")
    def _odd_kernel(self) -> "Model":
        if self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel must be odd: got {self.conv_kernel}")
        return self


class Loss(Settings):
    """Loss of a logit against a label."""

    kind: Literal["bce", "focal"] = "bce"
    """Binary cross entropy, or focal loss (Lin et al. 2017), which gives easy samples less weight:
    for rare lenses."""
    positive_weight: PositiveFloat = 1.0
    """Weight of a lens relative to a non-lens."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Distance that labels are moved towards each other: 0.1 makes them 0.05 and 0.95."""
    focal_gamma: NonNegativeFloat = 2.0
    """Exponent of the focal loss: the larger, the less weight easy samples have."""
    soft_labels: bool = True
    """Train against the soft labels and by the weights that rows of the dataset have, such as those
    that were graded; false: against their labels alone, all of the same weight."""


class Optim(Settings):
    """AdamW."""

    lr: PositiveFloat = 2e-3
    """Learning rate at the start of each cosine."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay."""
    backbone_lr_factor: NonNegativeFloat = 1.0
    """Learning rate of the backbone, as a multiple of lr."""
    frozen_backbone_epochs: NonNegativeInt = 0
    """Epochs at the start in which the backbone's weights stay as they are."""
    gradient_clip: PositiveFloat | None = None
    """Largest norm of the gradient; a larger one is scaled down to it."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay a step of an exponential moving average of the weights; the average is then validated
    and exported."""


class Schedule(Settings):
    """Cosine annealing with warm restarts, stepped by the fraction of the epoch."""

    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs of linear rise before the first cosine."""
    period_epochs: PositiveInt = 10
    """Epochs from the start to the first restart (T_0)."""
    period_factor: PositiveInt = 1
    """How many times longer each period is than the one before (T_mult)."""
    minimum_lr: NonNegativeFloat = 1e-6
    """Learning rate at the end of each cosine (eta_min)."""


class Loop(Settings):
    """The training loop."""

    epochs: PositiveInt = 30
    """Passes over the training split."""
    best: Literal["auc", "tpr10", "partial_auc", "loss"] = "auc"
    """Number of the validation split that chooses RUN/best after an epoch: auc | tpr10
    (completeness before the tenth false positive) | partial_auc (false positive rates up to 1%) |
    loss."""
    global_batch_size: PositiveInt = 128
    """Samples of one optimizer step, over all processes together."""
    micro_batch_size: PositiveInt | None = None
    """Samples of one forward pass on one device; gradients are accumulated over as many passes as a
    step needs; null: one pass."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision of training: no is float32, fp16 needs a GPU. Validation is in float32."""
    tf32: bool = False
    """Let float32 products on the GPU keep 10 bits of their mantissa, which is faster."""
    channels_last: bool = False
    """Keep images with their bands last in memory, which is faster on GPUs in mixed precision."""
    compile: bool = False
    """Compile the model with torch.compile: a minute or more at the start, then faster steps."""
    sync_batchnorm: bool = False
    """Normalise over the batches of all GPUs together; torch has no such layer for the CPU."""
    deterministic: bool = False
    """Let a GPU choose only algorithms that give the same bits each time, which is slower; the CPU
    does so anyway."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the weights, of the order of the samples and of the augmentation."""
    max_minutes: PositiveFloat | None = None
    """Save and stop after this time; null: shortly before the end of a Slurm job, if there is
    one."""
    timeout_minutes: PositiveFloat = 10.0
    """How long a process may not answer the others before the job ends with its name."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Who shows the metrics, beside metrics.jsonl: tensorboard, wandb, mlflow, or another one that
    Accelerate knows."""


class Checkpoint(Settings):
    """Checkpoints, from which a run goes on after it was stopped or killed."""

    every_steps: PositiveInt | None = None
    """Optimizer steps from one checkpoint to the next; null: by time alone."""
    every_minutes: PositiveFloat = 10.0
    """Longest time from one checkpoint to the next."""
    keep: PositiveInt = 2
    """Number of the newest checkpoints that are kept."""


class Resume(Settings):
    """What may differ when a run goes on."""

    allow: tuple[str, ...] = ()
    """Settings that may differ from those that the run was begun with, as in [optim.lr]."""


MODEL_OF_OLDER_RUNS = {"feature_scaling": "minmax", "missing_indicator": False}
LOSS_OF_OLDER_RUNS = {"soft_labels": False}
OLDER_RUNS: dict[str, dict[str, Any]] = {"model": MODEL_OF_OLDER_RUNS, "loss": LOSS_OF_OLDER_RUNS}
"""What a config.yaml in a run means that lacks these keys, which have another default now."""


class Train(Settings):
    """Settings of `lens-hpc train`."""

    not_in_files: ClassVar[frozenset[str]] = frozenset({"code"})
    shown_first: ClassVar[tuple[str, ...]] = (
        "run",
        "data.dataset",
        "augment.engine",
        "model.inputs",
        "model.backbone",
        "model.weights",
        "optim.lr",
        "train.epochs",
        "train.global_batch_size",
        "train.micro_batch_size",
        "train.precision",
        "train.seed",
        "resume.allow",
        "processes",
    )
    example: ClassVar[str] = """
run: runs/first
data:
  dataset: data/shards
augment:
  engine: torch
model:
  backbone: resnet50
train:
  epochs: 30
  global_batch_size: 128
"""

    run: FilePath
    """Folder of the run: its config, metrics and weights."""
    data: Data
    augment: Augment = Augment()
    model: Model = Model()
    loss: Loss = Loss()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    train: Loop = Loop()
    checkpoint: Checkpoint = Checkpoint()
    resume: Resume = Resume()
    code: tuple[str, ...] = Field(default=(), exclude=True)
    """Packages of your own that model.name and augment.engine may name; nothing else is imported.
    It cannot stand in a file, which may be somebody else's."""

    @model_validator(mode="before")
    @classmethod
    def _read_older_runs(cls, tree: Any, info: ValidationInfo) -> Any:
        """Let the file of a run mean what it meant to the version that wrote it."""
        file = (info.context or {}).get("file")
        if not (file and _is_of_run(file) and isinstance(tree, dict)):
            return tree
        groups = {name: tree.get(name, {}) for name in OLDER_RUNS}
        older = {
            name: OLDER_RUNS[name] | group
            for name, group in groups.items()
            if isinstance(group, dict)
        }
        return tree | older


def _is_of_run(file: Path) -> bool:
    """Whether a run wrote this file of settings, into its folder or beside its weights."""
    others = (layout.ENVIRONMENT, layout.WEIGHTS)
    return file.name == layout.CONFIG and any((file.parent / name).exists() for name in others)
