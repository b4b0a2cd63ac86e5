"""What a training run is asked to do: settings that are checked once, and become `config.json`."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from imgdata.backends.options import BackendName
from imgdata.backends.registry import backend_names
from imgdata.errors import OptionError

Optimizer = Literal["sgd", "adamw"]
Curve = Literal["cosine", "onecycle", "constant"]
Precision = Literal["auto", "none", "bf16", "fp16"]
RecipeName = Literal["auto", "imagenet", "cifar", "classifier", "plain"]
Policy = Literal["none", "randaugment", "trivialaugment", "autoaugment"]
ClassWeights = Literal["none", "balanced", "effective"]

FREE = (
    "epochs",
    "device",
    "backend",
    "threads",
    "prefetch",
    "accumulate",
    "compile",
    "tensorboard",
    "checkpoint_steps",
)
"""What may differ when a run is gone on with: the rest decides the losses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """Settings of a run. Raises `OptionError`. What is None is decided by the dataset: `imgdata.training.defaults`."""

    # --- the network
    model: str | None = None
    """`cnn`, `resnet9`, or any name of timm's, such as `resnet50`."""
    size: int | None = None
    """Side of the pictures in pixels."""
    weights: str | None = None
    """File of weights to start with: .pth, .pt, .bin or .safetensors."""
    pretrained: bool = False
    """Start with the weights of timm's hub."""
    freeze: bool = False
    """Train the classifier alone, on the features of the rest as it is."""
    unfreeze_after: int | None = None
    """Epochs with `freeze` before the rest is trained as well."""
    backbone_lr: float = 0.1
    """Learning rate of all but the classifier, as a share of the classifier's, once it is not frozen any more."""
    dropout: float = 0.0
    drop_path: float = 0.0

    # --- the data
    split: str = "train"
    view: str | None = None
    """Of the training split: a saved view, or steps such as `fraction=0.1`."""
    val_split: str | None = None
    """What is validated with; without one, `val` or `test` where the dataset has it, else `hold_out`."""
    val_view: str | None = None
    hold_out: float | None = None
    """Validate with a part of the training split that is kept out: a number of samples, or a share below 1."""
    balance: bool = False
    """Draw all classes equally often."""
    class_weights: ClassWeights = "none"
    """Weights of classes in the loss, see `imgdata.views.balance.class_weights`."""

    # --- augmentation
    recipe: str = "auto"
    """`imagenet`, `cifar`, `classifier`, `plain`, or a file with `Recipe.to_dict` as JSON."""
    flip: bool = True
    """Mirror half of the pictures: not for digits or letters."""
    policy: Policy = "none"
    mixup: float = 0.0
    """Alpha of MixUp; 0 for none."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0 for none."""
    erasing: float = 0.0
    """Probability that a rectangle is painted over."""
    progressive: bool = False
    """Begin with pictures of two thirds of the side, and grow until three quarters of the epochs are over."""

    # --- the course
    epochs: int | None = None
    batch_size: int | None = None
    """Samples of one step of the optimiser, over all ranks."""
    accumulate: int = 1
    """Parts in which each rank computes its share of a batch, one after another, to save memory."""
    optimizer: Optimizer | None = None
    lr: float | None = None
    """Highest learning rate."""
    curve: Curve = "cosine"
    warmup: float | None = None
    """Epochs in which the learning rate rises from 0."""
    momentum: float = 0.9
    """Of SGD, in Nesterov's form."""
    weight_decay: float | None = None
    """Of all weights but norms and biases."""
    label_smoothing: float | None = None
    clip_grad: float | None = None
    """Highest norm of the gradient."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is what is validated and kept; 0 for none."""
    flip_test: bool = False
    """Validate with the mean of each picture and its mirror image."""
    seed: int = 0

    # --- the machine
    device: str = "auto"
    backend: BackendName = "auto"
    threads: int | None = None
    prefetch: int = 2
    amp: Precision = "auto"
    """16-bit arithmetic: bf16 on GPUs that have it, none on the CPU."""
    channels_last: bool = True
    sync_batchnorm: bool = False
    """Batch statistics over all ranks; CUDA only."""
    compile: bool = False
    tensorboard: bool = False
    checkpoint_steps: int = 500
    """Steps after which the run is saved in mid-epoch; 0 for the ends of epochs alone."""

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not least <= value <= most:
                raise OptionError(f"{name} must be {_range(least, most)}, got {value!r}")
        for name, choices in {**_CHOICES, "backend": backend_names()}.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise OptionError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
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
        if self.hold_out is not None and (self.val_split is not None or self.val_view is not None):
            raise OptionError("hold_out can't be given with val_split or val_view: validate with one of them")
        if self.balance and self.class_weights != "none":
            raise OptionError("balance and class_weights can't be given together: both would correct for the classes")
        if self.recipe.endswith(".json"):
            self._check_left_out(("flip", "policy", "mixup", "cutmix", "erasing", "progressive"))
        if self.view is not None and self.hold_out is not None and "balance" in self.view:
            raise OptionError("hold_out can't cut a balanced view; use balance=True instead, which comes after the cut")

    def _check_left_out(self, names: Sequence[str]) -> None:
        """A recipe from a file says all that is done to pictures."""
        for name in names:
            if getattr(self, name) != _DEFAULTS[name]:
                raise OptionError(f"{name} can't be given with a recipe from a file; put it into {self.recipe}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "TrainOptions":
        """The settings that `to_dict` gave. Raises `OptionError` for names that are no setting."""
        unknown = sorted(set(content) - {field.name for field in dataclasses.fields(TrainOptions)})
        if unknown:
            raise OptionError(f"options: {unknown[0]!r} is none; another imgdata wrote it")
        return TrainOptions(**content)


def settings_of(options: TrainOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    """What was asked for, by name; of `TrainOptions`, which can't tell, what differs from the defaults."""
    if isinstance(options, TrainOptions):
        return {name: value for name, value in options.to_dict().items() if value != _DEFAULTS[name]}
    return dict(options or {})


def go_on_with(saved: TrainOptions, given: Mapping[str, Any]) -> TrainOptions:
    """The settings of a run that is gone on with: those it was started with, and what may change as given now.

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


def _range(least: float, most: float) -> str:
    return f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"


_WHOLE = {
    "size": 8,
    "unfreeze_after": 1,
    "epochs": 1,
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
_CHOICES = {
    "optimizer": get_args(Optimizer),
    "curve": get_args(Curve),
    "amp": get_args(Precision),
    "policy": get_args(Policy),
    "class_weights": get_args(ClassWeights),
}
_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in dataclasses.fields(TrainOptions)}
