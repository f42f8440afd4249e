"""Every setting of every verb.

One model a verb, made of small groups. A verb reads `load(Model, FILE, ["key=value", ...])`: the YAML file first, the
overrides upon it, and every problem in one UserError with its dotted path, the value given and what is valid.
Paths are relative to the folder that the command runs in.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
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


def usable_cpus() -> int:
    """Cores that this process may run on: fewer than the machine's inside a Slurm job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    """Which catalogue column is what."""

    id: str = "id"
    """A unique name a row."""
    label: str | None = "is_lens"
    """1 lens, 0 not, empty unlabelled; null: the whole catalogue is unlabelled."""
    features: tuple[str, ...] = ()
    """Numbers that the model may see; an empty cell is a missing value."""
    group: str | None = None
    """Rows of one group are never split across splits."""
    split: str | None = None
    """The split that a row belongs to; without it, splits are drawn."""


class Recipe(Settings):
    """A layout of catalogue and images on disk, in data: the recipe file of `lens-hpc pack`."""

    name: str
    """Name of the dataset."""
    catalogue: FilePath
    """CSV file, relative to the source folder."""
    columns: Columns = Columns()
    """Which catalogue column is what."""
    images: str
    """Path of a row's image (.fits, .npy or .png) in the source folder; {column} stands for the row's value."""
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the image planes, in their order."""
    pixel_scale: PositiveFloat
    """Arcseconds per pixel."""
    units: str
    """Unit of the pixel values."""
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    """Type of the stored pixels; a value that does not survive the cast is an error."""
    splits: dict[str, Share] = {"train": 0.7, "val": 0.15, "test": 0.15}
    """Fractions of the rows, drawn by label and by whole groups when there is no split column."""
    seed: NonNegativeInt = 0
    """Seed of the drawn splits and of the shuffle of their rows."""

    @model_validator(mode="after")
    def _splits_add_up(self) -> "Recipe":
        if self.columns.split is None:
            if abs(sum(self.splits.values()) - 1) > 1e-6:
                raise ValueError(f"splits must add up to 1: got {sum(self.splits.values()):g} from {self.splits}")
            if "train" not in self.splits:
                raise ValueError("splits must have one named train")
        return self


class Pack(Recipe):
    """Settings of `lens-hpc pack`: those of the recipe, and these."""

    source: FilePath
    """Folder that holds the catalogue and the images."""
    output: FilePath
    """Folder of the new dataset; must not exist yet."""
    shard_mib: PositiveInt = 256
    """Size that a shard of images does not pass, MiB."""


# ---- train ------------------------------------------------------------------------------------------------------


class Data(Settings):
    """Where samples come from."""

    dataset: FilePath
    """Folder of the packed dataset."""
    image_scale: Literal["cutout", "split"] = "cutout"
    """Divide pixels by the maximum of the cutout, or of the whole training split."""
    workers: NonNegativeInt = 2
    """Loader processes for each training process; 0: load in the training process itself."""


class Augment(Settings):
    """Probabilities of the author's augmentations, for each training cutout."""

    hflip: Probability = 0.3
    """Horizontal flip."""
    vflip: Probability = 0.3
    """Vertical flip."""
    blur: Probability = 0.3
    """AdvancedBlur: a random generalised Gaussian kernel of 3 to 7 pixels."""


class Model(Settings):
    """The fusion model; every default is its author's."""

    inputs: Literal["fusion", "image", "features"] = "fusion"
    """Train both branches, or one alone: the ablation."""
    backbone: str = "resnet50"
    """Any timm model."""
    weights: str = "pretrained"
    """none | pretrained (timm's, downloaded once) | a .safetensors or .pth FILE for the backbone."""
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
    """Binary cross entropy with logits."""

    positive_weight: PositiveFloat = 1.0
    """Weight of a lens relative to a non-lens."""


class Optim(Settings):
    """AdamW."""

    lr: PositiveFloat = 2e-3
    """Learning rate at the start of each cosine."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay."""


class Schedule(Settings):
    """Cosine annealing with warm restarts, stepped by the fraction of the epoch."""

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
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no is float32; fp16 needs a GPU."""
    seed: NonNegativeInt = 0
    """Seed of the weights, of the order of the samples and of the augmentation."""


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


# ---- evaluate ---------------------------------------------------------------------------------------------------


class Evaluate(Settings):
    """Settings of `lens-hpc evaluate`."""

    split: str = "test"
    """Split to score."""
    weights: Literal["best", "final"] = "best"
    """Weights with the best validation AUC, or those of the last epoch."""
    dataset: FilePath | None = None
    """Packed dataset to score instead of the run's own."""
    batch_size: PositiveInt = 256
    """Cutouts of one forward pass on one process."""
    workers: NonNegativeInt = 0
    """Loader processes for each process."""


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
        problems = [_explain(kind, problem) for problem in error.errors()]
    where = " and ".join(([str(file)] if file else []) + (["the command line"] if overrides or not file else []))
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    raise UserError(f"{count} in the settings from {where}:\n" + "\n".join(f"  {problem}" for problem in problems))


def dump(settings: Settings) -> str:
    """Settings as YAML that `load` reads back equal."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def differences(one: Settings, other: Settings) -> list[str]:
    """`key: value in one, value in the other` for every setting that differs."""
    left, right = dict(_leaves(one.model_dump(mode="json"))), dict(_leaves(other.model_dump(mode="json")))
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
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
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
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


def _explain(kind: type[Settings], problem: ErrorDetails) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    given = _shown(problem["input"])
    if problem["type"] == "missing":
        return f"{path}: missing; give {path}=... or write it into the file"
    if problem["type"] == "extra_forbidden":
        return f"{path} = {given}: unknown setting; {_nearest(kind, path)}"
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if problem["type"] == "value_error":
        return f"{path}: {reason}" if path else reason
    return f"{path} = {given}: {reason}"


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
    text = "null" if value is None else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
