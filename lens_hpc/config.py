"""Every setting of every verb.

One model a verb, made of small groups. A verb reads `load(Model, FILE, ["key=value", ...])`: the YAML file first, the
overrides upon it, and every problem in one UserError with its dotted path, the value given and what is valid.
Paths are relative to the folder that the command runs in.
"""

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticUndefined

from lens_hpc import UserError

FilePath = Annotated[Path, AfterValidator(Path.expanduser)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def usable_cpus() -> int:
    """Cores that this process may run on: fewer than the machine's inside a Slurm job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def step_variable(name: str, default: int) -> int:
    """A number that srun gives to the tasks of a step; the default in a batch script, which is no task of a step."""
    return int(os.environ[name]) if "SLURM_STEP_NUM_TASKS" in os.environ else default


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, a docstring a field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


# ---- simulate ---------------------------------------------------------------------------------------------------


class Simulate(Settings):
    """Settings of `lens-hpc simulate`."""

    objects: PositiveInt = 4000
    """Number of cutouts."""
    seed: NonNegativeInt = 0
    """The same seed gives the same bytes, whatever the number of processes."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the objects that are lenses; one in a thousand or fewer on the real sky."""
    size: Annotated[int, Field(ge=32, le=512)] = 64
    """Height and width of a cutout, pixels."""
    pixel_scale: Annotated[float, Field(ge=0.05, le=0.5)] = 0.168
    """Arcseconds per pixel."""
    bands: Annotated[tuple[Literal["g", "r", "i", "z", "y"], ...], Field(min_length=1)] = ("g", "r", "i")
    """Filters of each cutout, in this order."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes."""

    @model_validator(mode="after")
    def _fits(self) -> "Simulate":
        if self.size * self.pixel_scale < MINIMUM_FIELD_ARCSEC:
            raise ValueError(
                f"size x pixel_scale must be at least {MINIMUM_FIELD_ARCSEC} arcsec, or arcs would not fit: "
                f"got {self.size * self.pixel_scale:.1f}"
            )
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("bands must differ from each other")
        return self


MINIMUM_FIELD_ARCSEC = 8.0


# ---- pack -------------------------------------------------------------------------------------------------------


class Columns(Settings):
    """Which catalogue column is what; without a catalogue, the fields of the image pattern are the columns."""

    id: str = "id"
    """A column with a unique name a row, or a template of columns: "{field}_{number}"."""
    label: str | None = "is_lens"
    """A column (1 lens, 0 not, empty unlabelled), or a condition on columns: kind == 'lens' & snr > 5; null: none."""
    features: tuple[str, ...] = ()
    """Numbers that the model may see; an empty cell is a missing value."""
    group: str | None = None
    """Rows of one group are never split across splits."""
    split: str | None = None
    """The split that a row belongs to; without it, splits are drawn."""
    split_names: dict[str, SplitName] = {}
    """Value of the split column: name of the split."""

    @model_validator(mode="after")
    def _features_are_features(self) -> "Columns":
        others = {self.id, self.label, self.group, self.split}
        if told := [name for name in self.features if name in others]:
            raise ValueError(f"features must not hold the id, label, group or split: got {', '.join(told)}")
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features must differ from each other: got {', '.join(self.features)}")
        return self


class BadPixels(Settings):
    """What to do about pixels that hold no measurement: NaN, infinite, or equal to `mask`."""

    mask: float | None = None
    """A value that marks a masked pixel."""
    most: Probability = 0.0
    """Fraction of such pixels up to which a cutout is kept; above it, the row is bad."""
    fill: Literal["zero", "median"] = "median"
    """What replaces them in a cutout that is kept: zero, or the median of its good pixels in the band."""


class Recipe(Settings):
    """A layout of catalogue and images on disk, in data: the recipe file of `lens-hpc pack`."""

    name: str
    """Name of the dataset."""
    catalogue: FilePath | None = None
    """CSV, Parquet, FITS table or VOTable in the source folder, also gzipped; null: rows are the image files found."""
    columns: Columns = Columns()
    """Which catalogue column is what."""
    images: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] | None = None
    """Path of a row's image in the source folder; {column} stands for its value, {band} for each band, a list for
    alternatives, and a mapping gives each band its own. Without a catalogue, {name:regular expression} is allowed."""
    stack: FilePath | None = None
    """One .npy, .npz or HDF5 array with all cutouts in the order of the catalogue, instead of `images`."""
    stack_axes: Literal["NBHW", "NHWB", "NHW"] = "NBHW"
    """Order of its axes: number, band, height, width."""
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the bands, in the order of the image planes."""
    hdu: int | str | None = None
    """Number or name of the FITS HDU with the image; null: the first with one, in an image or in a table's cell."""
    key: str | None = None
    """Name of the array in an .npz or HDF5 file."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width to which every cutout is cropped or padded with zeros around its centre; null: all are equal."""
    pixel_scale: PositiveFloat | dict[str, PositiveFloat]
    """Arcseconds per pixel; where bands differ, all are resampled to the finest grid, flux conserved."""
    units: str
    """Unit of the pixel values."""
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    """Type of the stored pixels; a value that does not survive the cast is a bad row."""
    compression: Literal["none", "lzf", "gzip"] = "none"
    """Lossless filter of the images; none keeps them contiguous, so that readers can map them."""
    bad_pixels: BadPixels = BadPixels()
    """What to do about pixels that hold no measurement."""
    splits: dict[SplitName, Share] = {"train": 0.7, "val": 0.15, "test": 0.15}
    """Fractions of the rows, drawn by label and by whole groups when there is no split column."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the rows in train to draw as val, where the split column has none."""
    seed: NonNegativeInt = 0
    """Seed of the drawn splits and of the shuffle of their rows."""

    @model_validator(mode="after")
    def _complete(self) -> "Recipe":
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("bands must differ from each other")
        if (self.images is None) == (self.stack is None):
            raise ValueError("give either images or stack")
        if self.stack is not None and self.catalogue is None:
            raise ValueError("a stack needs a catalogue, in the same row order")
        for what, keys in (("images", self.images), ("pixel_scale", self.pixel_scale)):
            if isinstance(keys, dict) and set(keys) != set(self.bands):
                raise ValueError(f"{what} must name the bands {', '.join(self.bands)}: got {', '.join(keys)}")
        if self.columns.split is None:
            if abs(sum(self.splits.values()) - 1) > 1e-6:
                raise ValueError(f"splits must add up to 1: got {sum(self.splits.values()):g} from {self.splits}")
            if "train" not in self.splits and self.columns.label is not None:
                raise ValueError("splits must have one named train")
        return self


class Pack(Recipe):
    """Settings of `lens-hpc pack`: those of the recipe, and these."""

    source: FilePath
    """Folder that holds the catalogue and the images."""
    output: FilePath
    """Folder of the new dataset."""
    on_bad: Literal["error", "skip"] = "error"
    """What a bad row does: stop the packing, or be left out and listed in rejected.csv."""
    shard_mib: PositiveInt = 256
    """Size that a shard's images do not pass, MiB."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes of this task."""
    task: NonNegativeInt = Field(default_factory=lambda: step_variable("SLURM_PROCID", 0))
    """Number of this task among `tasks`, which share the shards; under srun both are known."""
    tasks: PositiveInt = Field(default_factory=lambda: step_variable("SLURM_STEP_NUM_TASKS", 1))
    """Number of tasks that pack into the same output."""
    dry_run: bool = False
    """Only say what would be packed."""

    @model_validator(mode="after")
    def _one_of_the_tasks(self) -> "Pack":
        if self.task >= self.tasks:
            raise ValueError(f"task must be less than tasks: got {self.task} of {self.tasks}")
        return self


# ---- verify, info -----------------------------------------------------------------------------------------------


class Verify(Settings):
    """Settings of `lens-hpc verify`."""

    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes."""


class Info(Settings):
    """Settings of `lens-hpc info`."""

    figure: FilePath | None = None
    """PNG file to draw a contact sheet of random lenses and non-lenses into."""
    split: str | None = None
    """Split that the figure shows; null: the first."""
    seed: NonNegativeInt = 0
    """Seed of the choice of cutouts."""


# ---- audit ------------------------------------------------------------------------------------------------------


class Audit(Settings):
    """Settings of `lens-hpc audit`: there are none."""


# ---- train ------------------------------------------------------------------------------------------------------


class Data(Settings):
    """Where samples come from."""

    dataset: FilePath
    """Folder of the packed dataset."""
    image_scale: Literal["cutout", "split"] = "cutout"
    """Divide pixels by the maximum of the cutout, or of the whole training split."""
    shuffle: Literal["full", "blocks"] = "full"
    """A true permutation, or runs of 64 rows mixed in windows of 8192: for storage that is slow at random."""
    balance: Literal["none", "oversample"] = "none"
    """Each sample once an epoch, or those of the rarer class repeated until both classes are equally frequent."""
    last: Literal["drop", "keep"] = "drop"
    """What becomes of the last step of an epoch when too few samples are left for it."""
    workers: NonNegativeInt = 2
    """Threads (processes, for albumentations and compressed shards) that load for each training process; 0: none."""
    verify: Literal["header", "full"] = "header"
    """Before the first step, check size and header of every shard, or every byte."""
    stage_to: str | None = None
    """Folder on a disk of each node to copy its shards to, such as $SLURM_TMPDIR; null: read them where they are."""


class Augment(Settings):
    """Augmentation of each training cutout: the author's three, by probability, and extras that are off by default."""

    engine: Literal["albumentations", "torch"] = "albumentations"
    """The first three are done a cutout at a time, or a batch at a time on the model's device (the faster)."""
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
    """Extra: Gaussian noise of this standard deviation, in units of normalised pixels (1 is the maximum)."""


class Model(Settings):
    """The fusion model; every default is its author's."""

    inputs: Literal["fusion", "image", "features"] = "fusion"
    """Train both branches, or one alone: the ablation."""
    backbone: str = "resnet50"
    """Any timm model."""
    weights: str = "pretrained"
    """none | pretrained (timm's, as `lens-hpc weights` fetched it) | a FILE of weights for the backbone | a RUN, or one
    of its folders, whose whole model is the start; what has another shape there begins anew."""
    weights_folder: FilePath = Path("weights")
    """Where `lens-hpc weights` puts timm's files, and where training reads them."""
    norm: Literal["batch", "layer"] = "batch"
    """Normalisation around the Conv1d blocks: over the batch as the author has it, or within each sample, which makes
    the result independent of how a batch is shared by processes (if the backbone, too, has no BatchNorm)."""
    conv_channels: tuple[PositiveInt, PositiveInt] = (512, 256)
    """Channels of the two Conv1d blocks over the backbone's positions."""
    conv_kernel: Annotated[int, Field(ge=1)] = 3
    """Their kernel, positions; odd."""
    attention_channels: PositiveInt = 128
    """Hidden channels of the spatial attention."""
    feature_channels: tuple[PositiveInt, PositiveInt] = (128, 256)
    """Units of the two fully connected layers for the catalogue features."""

    @model_validator(mode="after")
    def _odd_kernel(self) -> "Model":
        if self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel must be odd: got {self.conv_kernel}")
        return self


class Loss(Settings):
    """Loss of a logit against a label."""

    kind: Literal["bce", "focal"] = "bce"
    """Binary cross entropy, or focal loss (Lin et al. 2017), which looks away from the easy ones: for rare lenses."""
    positive_weight: PositiveFloat = 1.0
    """Weight of a lens relative to a non-lens."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Labels are moved so far towards 0.5: 0.1 makes them 0.05 and 0.95."""
    focal_gamma: NonNegativeFloat = 2.0
    """How much the focal loss looks away."""


class Optim(Settings):
    """AdamW."""

    lr: PositiveFloat = 2e-3
    """Learning rate at the start of each cosine."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay."""
    backbone_lr_factor: NonNegativeFloat = 1.0
    """The backbone learns at this multiple of lr."""
    frozen_backbone_epochs: NonNegativeInt = 0
    """Epochs at the start in which the backbone's weights stay as they are."""
    gradient_clip: PositiveFloat | None = None
    """Largest norm of the gradient; a larger one is scaled down to it."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay a step of an exponential moving average of the weights, which is then what is validated and exported."""


class Schedule(Settings):
    """Cosine annealing with warm restarts, stepped by the fraction of the epoch."""

    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs of linear rise before the first cosine."""
    period_epochs: PositiveInt = 10
    """Epochs from the start to the first restart (T_0)."""
    period_factor: PositiveInt = 1
    """Each period is so many times longer than the one before (T_mult)."""
    minimum_lr: NonNegativeFloat = 1e-6
    """Learning rate at the end of each cosine (eta_min)."""


class Loop(Settings):
    """The training loop."""

    epochs: PositiveInt = 30
    """Passes over the training split."""
    global_batch_size: PositiveInt = 128
    """Samples of one optimizer step, over all processes together."""
    micro_batch_size: PositiveInt | None = None
    """Samples of one forward pass on one device; gradients are accumulated over as many as a step needs; null: all."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no is float32; fp16 needs a GPU."""
    tf32: bool = False
    """Let float32 products on the GPU keep 10 bits of their mantissa: faster."""
    channels_last: bool = False
    """Keep images with their bands last in memory: faster on GPUs in mixed precision."""
    compile: bool = False
    """Compile the model with torch.compile: a minute or more at the start, then faster steps."""
    sync_batchnorm: bool = False
    """Normalise over the batches of all GPUs together; on the CPU torch has no such thing."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the weights, of the order of the samples and of the augmentation."""
    max_minutes: PositiveFloat | None = None
    """Save and stop after so long; null: in time before the end of a Slurm job, where there is one."""
    timeout_minutes: PositiveFloat = 10.0
    """A process that does not answer the others for so long is given up, and the job with it."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Where metrics go beside metrics.jsonl: tensorboard, wandb, mlflow, ... as Accelerate names them."""


class Checkpoint(Settings):
    """What a run keeps to go on from after it was stopped or killed."""

    every_steps: PositiveInt | None = None
    """Save every so many optimizer steps."""
    every_minutes: PositiveFloat = 10.0
    """Save when so much time has passed since the last."""
    keep: PositiveInt = 2
    """So many of the newest checkpoints stay."""


class Resume(Settings):
    """How strict a run is about being gone on with."""

    allow: tuple[str, ...] = ()
    """Settings that may differ from those that the run was begun with, as in [optim.lr]."""


class Train(Settings):
    """Settings of `lens-hpc train`."""

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


# ---- weights, check ---------------------------------------------------------------------------------------------


class Weights(Train):
    """Settings of `lens-hpc weights`: those of `train`."""


class Check(Train):
    """Settings of `lens-hpc check`: those of `train`, and the job to come."""

    world_size: PositiveInt = 1
    """Processes of the job: GPUs of all nodes together."""
    sbatch: FilePath | None = None
    """Batch script of the job; its nodes and GPUs then give the world size."""


# ---- bench ------------------------------------------------------------------------------------------------------


class Bench(Train):
    """Settings of `lens-hpc bench`: those of `train`, and how long to measure."""

    run: FilePath = Path("runs/bench")
    """Not used: bench writes nothing."""
    seconds: PositiveFloat = 6.0
    """How long each part is measured."""


# ---- evaluate ---------------------------------------------------------------------------------------------------


class Evaluate(Settings):
    """Settings of `lens-hpc evaluate`."""

    split: str = "test"
    """Split to score."""
    weights: str = "best"
    """best (by validation AUC) | final (last epoch) | a FILE model.safetensors, its config.yaml beside it."""
    dataset: FilePath | None = None
    """Packed dataset to score instead of the run's own."""
    tta: Literal["none", "flips", "d4"] = "none"
    """Test-time augmentation: the mean over the 4 flips of each cutout, or over all 8 flips and quarter turns."""
    compare: tuple[FilePath, ...] = ()
    """Runs, evaluated in the same way before, to compare with: the ablation. [runs/image, runs/features]"""
    prevalence: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Share of lenses in the survey that the finder is meant for; the split may have any other."""
    survey_size: PositiveInt = 1_000_000
    """Objects of that survey: how many candidates would have to be inspected?"""
    completeness: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
    """Shares of the lenses to find, for which purity and candidates are told."""
    batch_size: PositiveInt = 256
    """Cutouts of one forward pass on one process."""
    workers: NonNegativeInt = 2
    """Threads (processes, for compressed shards) that load for each process; 0: none."""


# ---- reading ----------------------------------------------------------------------------------------------------

AnySettings = TypeVar("AnySettings", bound=Settings)


def load(kind: type[AnySettings], file: Path | None = None, overrides: Sequence[str] = ()) -> AnySettings:
    """Settings from a YAML file (where the verb has one) and `key=value` overrides, dotted keys for groups.

    Raises UserError with every problem at once.
    """
    tree = read_yaml(file) if file else {}
    for override in overrides:
        _set(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        reasons: dict[str, list[str]] = {}
        for problem in error.errors():
            said, reason = _explain(kind, problem)
            reasons.setdefault(said, []).append(reason)
    problems = [said + ", or ".join(alternatives) for said, alternatives in reasons.items()]
    where = " and ".join(([str(file)] if file else []) + (["the command line"] if overrides or not file else []))
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    raise UserError(f"{count} in the settings from {where}:\n" + "\n".join(f"  {problem}" for problem in problems))


def dump(settings: Settings) -> str:
    """Settings as YAML that `load` reads back equal."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def differences(one: Settings, other: Settings, ignored: Collection[str] = ()) -> list[str]:
    """`key: value in one, value in the other` for every setting that differs, but for the keys ignored."""
    left, right = dict(_leaves(one.model_dump(mode="json"))), dict(_leaves(other.model_dump(mode="json")))
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key) and key not in ignored]
    return [f"{key}: {left.get(key)} there, {right.get(key)} here" for key in keys]


def describe(kind: type[Settings], prefix: str = "") -> list[tuple[str, str, str]]:
    """(dotted key, default or `(required)`, meaning) of every setting, for --help."""
    rows = []
    for name, field in kind.model_fields.items():
        group = _group(field.annotation)
        if group:
            rows += describe(group, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        shown = "(required)" if default is PydanticUndefined else _shown(default)
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        meaning = f"{' | '.join(choices)}: " * bool(choices) + (field.description or "")
        rows.append((prefix + name, shown, meaning))
    return rows


class _Yaml(yaml.SafeLoader):
    """Plain words stay words (`no`, `on`, dates), only true and false are truth values; no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_NOT_RESOLVED = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_RESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=_Yaml)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{file}: must hold `key: value` lines, not {type(tree).__name__}")
    return tree


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is not a setting; write key=value, as in train.epochs=5")
    try:
        value = yaml.load(text, Loader=_Yaml)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: the value is not valid YAML: {error}") from error
    *groups, name = key.split(".")
    for group in groups:
        branch = tree.setdefault(group, {})
        if not isinstance(branch, dict):
            raise UserError(f"{override!r}: {group} is a value, not a group of settings")
        tree = branch
    tree[name] = value


def _explain(kind: type[Settings], problem: ErrorDetails) -> tuple[str, str]:
    """What is wrong (the setting and its value), and why; alternatives of one setting share the first."""
    path = ".".join(str(part) for part in problem["loc"] if not _TYPE_TAG.search(str(part)))
    given = _shown(problem["input"])
    if problem["type"] == "missing":
        return f"{path}: ", f"missing; give {path}=... or write it into the file"
    if problem["type"] == "extra_forbidden":
        return f"{path} = {given}: ", f"unknown setting; {_nearest(kind, path)}"
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    reason = reason.replace("a valid tuple", "a list, as in [a, b]").replace(
        "a valid dictionary", "a mapping {a: ..., b: ...}"
    )
    if problem["type"] == "value_error":
        return f"{path}: " * bool(path), reason
    return f"{path} = {given}: ", reason


# pydantic names the alternative of a union that it tried: no part of the user's path
_TYPE_TAG = re.compile(r"\[|^(constrained-)?(str|int|float|bool)$")


def _nearest(kind: type[Settings], path: str) -> str:
    names = [key for key, _, _ in describe(kind)]
    parent = path.rpartition(".")[0]
    siblings = [key for key in names if key.rpartition(".")[0] == parent]
    same_leaf = [key for key in names if key.rpartition(".")[2] == path.rpartition(".")[2]]
    near = same_leaf or difflib.get_close_matches(path, names, n=1)
    valid = f"valid here: {', '.join(siblings or names)}"
    return f"did you mean {near[0]}? ({valid})" if near else valid


def _group(annotation: Any) -> type[Settings] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _shown(value: Any) -> str:
    text = "null" if value is None else f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
