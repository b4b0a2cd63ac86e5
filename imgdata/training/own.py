"""A user's own network, loss and metrics -> the same, checked, with names that a run can keep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgdata.errors import OptionError
from imgdata.models import ModelInput
from imgdata.models.weights import mismatch, read_weights
from imgdata.recipes import IMAGENET_MEAN, IMAGENET_STD
from imgdata.recipes.functions import import_named, name_of

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits float32 `(N, C)`, labels int64 `(N,)` (float32 `(N, C)` of mixed samples) -> the mean over the batch."""
Metric = Callable[[torch.Tensor, torch.Tensor], float]
"""Logits float32 `(N, C)`, labels int64 `(N,)` of all validation samples, on the CPU -> a number, higher is better."""
_USUAL_SIZE, _USUAL_RESIZE = 224, 256


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnParts:
    """Parts of a run that are the user's code. Raises `OptionError`."""

    model: nn.Module | None = None
    loss: Loss | None = None
    """Loss to train with; None for cross-entropy. Validation's `val_loss` is always cross-entropy."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Metrics of the validation, by name."""
    best_by: str | None = None
    """Name of the metric that chooses the best epoch; None for top-1."""

    def __post_init__(self) -> None:
        if self.best_by is not None and self.best_by not in self.metrics:
            raise OptionError(
                f"best_by must be one of the metrics ({', '.join(self.metrics) or 'none are given'}), got "
                f"{self.best_by!r}"
            )
        for name in self.metrics:
            if not name.isidentifier():
                raise OptionError(f"metrics must have names of letters, digits and _, got {name!r}")

    def names(self) -> dict[str, Any]:
        """Return what `config.json` keeps, so that a resumed run can ask for the same."""
        return {
            "loss": None if self.loss is None else name_of(self.loss),
            "metrics": sorted(self.metrics),
            "best_by": self.best_by,
        }


def is_own(model: str | None) -> bool:
    """Return whether a network's name is that of a user's own code: `package.module:function`."""
    return model is not None and ":" in model


def build_own(name: str, num_classes: int) -> nn.Module:
    """Return what the function `package.module:function` returns for so many classes; the code there is run.

    Modules of the working directory are found too. Raises `OptionError`.
    """
    try:
        function = import_named(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            f"model must be the name of a network, or package.module:function, got {name!r}: {error}"
        ) from error
    if not callable(function):
        raise OptionError(f"model must name a function that returns a network, got {name!r}, which is none")
    try:
        model = function(num_classes=num_classes)
    except TypeError as error:
        raise OptionError(f"model {name!r} must take num_classes={num_classes}, got: {error}") from error
    if not isinstance(model, nn.Module):
        raise OptionError(f"model {name!r} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def own_input(side: int) -> ModelInput:
    """Return what a user's own network takes by default: 224 pixels, or `side` where the pictures are smaller."""
    size = min(_USUAL_SIZE, side)
    return ModelInput(
        size=size,
        resize=round(size * _USUAL_RESIZE / _USUAL_SIZE),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation="bilinear",
    )


@torch.no_grad()
def check_logits(model: nn.Module, num_classes: int, size: int) -> None:
    """Raise `OptionError` where the network doesn't give logits `(N, num_classes)` for pictures of `size` pixels."""
    was_training = model.training
    model.eval()
    pictures = torch.zeros(2, 3, size, size)
    parameter = next(model.parameters(), None)
    try:
        logits_NC = model(pictures if parameter is None else pictures.to(parameter.device))
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise OptionError(f"model must take pictures (N, 3, {size}, {size}), got: {first}; or choose a size") from error
    finally:
        model.train(was_training)
    shape = tuple(logits_NC.shape) if isinstance(logits_NC, torch.Tensor) else type(logits_NC).__name__
    if shape != (2, num_classes):
        raise OptionError(f"model must give logits of shape (N, {num_classes}), one for each class, got {shape}")


def load_own_weights(model: nn.Module, path: Path) -> None:
    """Fill the network with the weights in a file, all of them. Raises `OptionError`, `MissingExtraError`."""
    state = read_weights(path)
    if (fault := mismatch(model, state)) is not None:
        raise OptionError(f"{path}: must hold the weights of this network, got {fault}")
    model.load_state_dict(state)
