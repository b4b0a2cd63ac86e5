"""Settings of a training run -> the same, checked once; as plain values for `config.json`."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from imgdata.backends.options import BackendName
from imgdata.backends.registry import backend_names
from imgdata.checks import is_integer, is_number
from imgdata.errors import OptionError

Optimizer = Literal["sgd", "adamw"]
Curve = Literal["cosine", "onecycle", "constant"]
Precision = Literal["auto", "none", "bf16", "fp16"]
Policy = Literal["none", "randaugment", "trivialaugment", "autoaugment"]
ClassWeights = Literal["none", "balanced", "effective"]

FREE = (
    "epochs",
    "device",
    "backend",
    "threads",
    "prefetch",
    "cache",
    "accumulate",
    "compile",
    "tensorboard",
    "checkpoint_steps",
    "patience",
)
"""Settings that may differ when a run is resumed; all others decide the losses."""
RECIPES = ("imagenet", "cifar", "classifier", "plain")
"""Recipes by name; with `_train` behind the name the same is meant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """Settings of a run. Raises `OptionError`. A setting that is None is decided by the dataset."""

    # --- the network
    model: str | None = None
    """`cnn`, `resnet9`, any name of timm's, such as `resnet50`, or `package.module:function` for a network of your own,
    which `function(num_classes=N)` returns."""
    size: int | None = None
    """Side of the pictures that the network gets, in pixels."""
    weights: str | None = None
    """File of weights to start with: `.pth`, `.pt`, `.bin` or `.safetensors`."""
    pretrained: bool = False
    """Start with the weights of timm's hub."""
    freeze: bool = False
    """Train the classifier alone; the rest of the network (the backbone) stays as it is."""
    unfreeze_after: int | None = None
    """Epochs with `freeze` after which the backbone is trained as well."""
    freeze_batchnorm: bool | None = None
    """Keep the batch statistics of the weights that training starts with. None: where a frozen backbone is thawed and
    few pictures at a time go through the network."""
    backbone_lr: float = 0.1
    """Learning rate of the backbone as a share of the classifier's, where training starts with weights."""
    dropout: float = 0.0
    """Share of the features that are dropped before the classifier in training."""
    drop_path: float = 0.0
    """Share of the residual branches that are left out in training."""

    # --- the data
    split: str = "train"
    """Name of the split to train on."""
    view: str | None = None
    """View of the training split: a saved view's name, or steps such as `fraction=0.1`."""
    val_split: str | None = None
    """Name of the split to validate with. None: `val` or the like where the dataset has it, never `test`; else a tenth
    of the training samples is held out."""
    val_view: str | None = None
    """View of the validation split, or of the training split where no validation split is named or usual."""
    hold_out: float | None = None
    """Training samples to hold out and validate with, drawn by class: a number, or a share below 1."""
    balance: bool = False
    """Draw all classes equally often."""
    class_weights: ClassWeights = "none"
    """Weights of the classes in the loss: `balanced` by 1 / samples, `effective` by the effective number of samples."""
    weight_column: str | None = None
    """Column of the dataset with the weight of each sample in the loss; their mean counts as 1."""
    regression_loss: Literal["mse", "l1"] | None = None
    """Loss of numbers: squared or absolute difference, in standard deviations. None: squared."""

    # --- augmentation
    recipe: str = "auto"
    """`imagenet`, `cifar`, `classifier`, `plain`, or a `.json` file as `Recipe.to_dict` gives it."""
    flip: bool | None = None
    """Mirror half of the pictures. None: unless the class names are digits or letters."""
    policy: Policy = "none"
    mixup: float = 0.0
    """Alpha of MixUp; 0 for none."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0 for none."""
    erasing: float = 0.0
    """Probability that a rectangle is painted over."""
    progressive: bool = False
    """Begin with pictures of two thirds of the side; they grow until three quarters of the epochs are over."""

    # --- the course
    epochs: int | None = None
    patience: int | None = None
    """Epochs without a new best one after which the run ends early."""
    batch_size: int | None = None
    """Samples of one step of the optimizer, over all ranks."""
    accumulate: int = 1
    """Parts in which each rank computes its share of a batch, one after another, to save memory."""
    optimizer: Optimizer | None = None
    lr: float | None = None
    """Highest learning rate."""
    curve: Curve = "cosine"
    warmup: float | None = None
    """Epochs in which the learning rate rises from 0."""
    momentum: float = 0.9
    """Momentum of SGD, in Nesterov's form."""
    weight_decay: float | None = None
    """Weight decay of all weights but norms and biases."""
    label_smoothing: float | None = None
    """Share of each label that is spread over all classes."""
    clip_grad: float | None = None
    """Highest norm of the gradient."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then validated and kept; 0 for none."""
    flip_test: bool = False
    """Validate with the mean of each picture and its mirror image."""
    seed: int = 0
    """Seed of weights, order and augmentation."""

    # --- the machine
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    backend: BackendName = "auto"
    """Backend that makes the batches: `cpu`, `dali`, `resident`, or `auto` for the best one here."""
    threads: int | None = None
    """Threads of the loader. None: one for each core."""
    prefetch: int = 2
    """Batches that are made ahead."""
    cache: str = "auto"
    """What is kept of a dataset in an object store: `auto`, `disk`, `memory`, `off`, or a number of gigabytes."""
    amp: Precision = "auto"
    """16-bit arithmetic: bf16 on GPUs that have it, none on the CPU."""
    channels_last: bool = True
    """Keep pictures and weights with the channels last in memory."""
    sync_batchnorm: bool = False
    """Batch statistics over all ranks; CUDA only."""
    compile: bool = False
    """Compile the network with `torch.compile`."""
    tensorboard: bool = False
    """Write TensorBoard's events too."""
    checkpoint_steps: int = 500
    """Steps between checkpoints within an epoch; 0 to save at the ends of epochs alone."""

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if value is not None and not (is_integer(value) and value >= least):
                raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
            if value is not None:
                # NumPy's integers can't be written as JSON.
                object.__setattr__(self, name, int(value))
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not (is_number(value) and least <= value <= most):
                raise OptionError(f"{name} must be {_range(least, most)}, got {value!r}")
        for name, choices in {**_CHOICES, "backend": backend_names()}.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        object.__setattr__(self, "cache", str(self.cache))
        for name in ("lr", "clip_grad", "hold_out"):
            if getattr(self, name) == 0:
                raise OptionError(f"{name} must be above 0, got 0")
        if self.hold_out is not None and self.hold_out >= 1 and self.hold_out != int(self.hold_out):
            raise OptionError(f"hold_out must be a share below 1 or a whole number of samples, got {self.hold_out}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.pretrained and self.weights is not None:
            raise OptionError("pretrained and weights can't be given together: one set of weights to start with")
        if self.freeze and not (self.pretrained or self.weights):
            raise OptionError("freeze needs pretrained weights: add pretrained, or weights=FILE")
        if self.unfreeze_after is not None and not self.freeze:
            raise OptionError("unfreeze_after needs freeze: nothing is frozen without it")
        if self.freeze_batchnorm and not (self.pretrained or self.weights):
            raise OptionError(
                "freeze_batchnorm needs pretrained weights, whose batch statistics it keeps: add pretrained, or "
                "weights=FILE"
            )
        if self.hold_out is not None and (self.val_split is not None or self.val_view is not None):
            raise OptionError("hold_out can't be given with val_split or val_view: validate with one of them")
        if self.balance and self.class_weights != "none":
            raise OptionError("balance and class_weights can't be given together: both would correct for the classes")
        if self.recipe.endswith(".json"):
            self._check_left_out(("flip", "policy", "mixup", "cutmix", "erasing", "progressive"))
        if self.view is not None and self.hold_out is not None and "balance" in self.view:
            raise OptionError("hold_out can't cut a balanced view; use balance=True instead, which comes after the cut")

    def _check_left_out(self, names: Sequence[str]) -> None:
        """Raise `OptionError` for settings beside a recipe from a file, which says all that is done to pictures."""
        for name in names:
            if getattr(self, name) != _DEFAULTS[name]:
                raise OptionError(f"{name} can't be given with a recipe from a file; put it into {self.recipe}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON; those of an object store where they are given."""
        content = dataclasses.asdict(self)
        if self.cache == _DEFAULTS["cache"]:
            del content["cache"]
        return content

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "TrainOptions":
        """Return the settings that `to_dict` gave. Raises `OptionError` for names that are no setting."""
        known = [field.name for field in dataclasses.fields(TrainOptions)]
        unknown = sorted(set(content) - set(known))
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, n=1)
            perhaps = f"perhaps {near[0]}, or " if near else ""
            raise OptionError(f"options: {unknown[0]!r} is none; {perhaps}another imgdata wrote it")
        return TrainOptions(**content)


def saved_options(content: Mapping[str, Any]) -> TrainOptions:
    """Return the settings in a run's `config.json`, with what older runs did where they don't say it."""
    before = {"freeze_batchnorm": False, **content}
    if str(before.get("recipe")).endswith(".json"):
        # A recipe from a file says itself whether pictures are mirrored.
        before["flip"] = None
    return TrainOptions.from_dict(before)


def settings_of(options: TrainOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings that were given, by name; of `TrainOptions` those that are not defaults."""
    if isinstance(options, TrainOptions):
        return {name: value for name, value in options.to_dict().items() if value != _DEFAULTS[name]}
    return dict(options or {})


def resumed_options(saved: TrainOptions, given: Mapping[str, Any]) -> TrainOptions:
    """Return the settings of a run that is resumed: those it was started with, and what may change as given now.

    Raises `OptionError` where a setting that was given now would change the losses.
    """
    TrainOptions.from_dict({**saved.to_dict(), **given})
    changed = {name: value for name, value in given.items() if value != getattr(saved, name)}
    for name, value in changed.items():
        if name not in FREE:
            raise OptionError(
                f"{name} must be {getattr(saved, name)!r}, which the run was started with, got {value!r}; leave it "
                f"out, or start another run (what may change: {', '.join(FREE)})"
            )
    return dataclasses.replace(saved, **changed)


def changed_options(saved: TrainOptions, given: Mapping[str, Any]) -> TrainOptions:
    """Return the settings of a saved run with those in `given` changed; a given one replaces those that exclude it."""
    left_out = {other for name in given for other in _EXCLUDES.get(name, ())}
    kept = {name: value for name, value in saved.to_dict().items() if name not in left_out}
    return TrainOptions.from_dict(kept | dict(given))


def _range(least: float, most: float) -> str:
    return f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"


_WHOLE = {
    "size": 8,
    "unfreeze_after": 1,
    "epochs": 1,
    "patience": 1,
    "batch_size": 1,
    "accumulate": 1,
    "seed": 0,
    "threads": 1,
    "prefetch": 1,
    "checkpoint_steps": 0,
}
"""Settings that are whole numbers, and the least they may be."""
_RANGES = {
    "backbone_lr": (0, 1),
    "dropout": (0, 0.99),
    "drop_path": (0, 0.99),
    "hold_out": (0, math.inf),
    "mixup": (0, math.inf),
    "cutmix": (0, math.inf),
    "erasing": (0, 1),
    "lr": (0, math.inf),
    "warmup": (0, math.inf),
    "momentum": (0, 0.9999),
    "weight_decay": (0, math.inf),
    "label_smoothing": (0, 0.99),
    "clip_grad": (0, math.inf),
    "ema": (0, 0.99999),
}
"""Settings that are numbers, with the least and the most."""
_EXCLUDES = {
    "hold_out": ("val_split", "val_view"),
    "val_split": ("hold_out", "val_view"),
    "val_view": ("hold_out",),
    "weights": ("pretrained",),
    "pretrained": ("weights",),
    "balance": ("class_weights",),
    "class_weights": ("balance",),
    "recipe": ("flip", "policy", "mixup", "cutmix", "erasing", "progressive"),
    "model": ("size", "optimizer", "lr", "weight_decay", "weights"),
    "optimizer": ("lr", "weight_decay"),
    "batch_size": ("lr",),
}
"""Settings -> settings of a saved run that are dropped when the former are given: they exclude or follow each other."""
_CHOICES = {
    "optimizer": get_args(Optimizer),
    "curve": get_args(Curve),
    "amp": get_args(Precision),
    "policy": get_args(Policy),
    "class_weights": get_args(ClassWeights),
    "regression_loss": ("mse", "l1"),
}
_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
