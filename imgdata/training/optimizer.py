"""A network, settings -> its optimizer, which parameters learn, and the learning rate of each step."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from imgdata.errors import OptionError
from imgdata.training.defaults import DecidedOptions
from imgdata.training.options import Curve

_LAST_SHARE = 0.01
"""Share of the learning rate at which cosine curves end."""
_RISE = 0.3
"""Share of the steps in which `onecycle` rises: Smith and Topin, "Super-convergence", 2017 (arXiv 1708.07120)."""


def make_optimizer(model: nn.Module, options: DecidedOptions) -> torch.optim.Optimizer:
    """Return SGD with Nesterov's momentum, or AdamW, over all parameters.

    Weight decay leaves norms and biases out (all parameters of one dimension, and those that the network names), as in
    He et al., "Bag of tricks for image classification", 2018 (arXiv 1812.01187). Each group has `lr_share`, its part
    of the run's learning rate: `backbone_lr` for all but the classifier, where training starts with weights.
    """
    groups = list(_groups(model, options))
    fused = next(model.parameters()).is_cuda
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=options.lr, momentum=options.momentum, nesterov=options.momentum > 0, fused=fused
        )
    return torch.optim.AdamW(groups, lr=options.lr, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set each group's learning rate to its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_share"]


def freeze(model: nn.Module, frozen: bool) -> None:
    """Let the classifier alone learn, or with `frozen` false all parameters. Raises `OptionError`."""
    head = _head_ids(model)
    if frozen and not head:
        raise OptionError("freeze needs a network with get_classifier(), which says what the classifier is")
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen or id(parameter) in head)


def train_mode(model: nn.Module, frozen: bool, *, freeze_batchnorm: bool = False) -> None:
    """Put the network into training mode, with `frozen` its classifier alone: batch statistics of the rest stay.

    With `freeze_batchnorm` the batch statistics of all batch norms stay, frozen or not.
    """
    model.train()
    if freeze_batchnorm:
        for module in model.modules():
            # The class of all of PyTorch's batch norms, and of timm's.
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    if frozen:
        head = {module for one in _heads(model) for module in one.modules()}
        for module in model.modules():
            if module not in head and not any(child in head for child in module.modules()):
                module.eval()


def _groups(model: nn.Module, options: DecidedOptions) -> Iterator[dict[str, object]]:
    transfers = options.pretrained or options.weights is not None
    head = _head_ids(model)
    spared = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    named = list(model.named_parameters())
    for of_head in (True, False):
        for decays in (True, False):
            chosen = [
                parameter
                for name, parameter in named
                if (id(parameter) in head) == of_head and (parameter.ndim > 1 and name not in spared) == decays
            ]
            if chosen:
                yield {
                    "params": chosen,
                    "weight_decay": options.weight_decay if decays else 0.0,
                    "lr_share": 1.0 if of_head or not transfers or not head else options.backbone_lr,
                }


def _head_ids(model: nn.Module) -> set[int]:
    return {id(parameter) for head in _heads(model) for parameter in head.parameters()}


def _heads(model: nn.Module) -> Sequence[nn.Module]:
    """Return the classifier, or both of a distilled network; nothing where the network doesn't name its classifier."""
    if not hasattr(model, "get_classifier"):
        return ()
    head = model.get_classifier()  # type: ignore[operator]
    return head if isinstance(head, Sequence) else (head,)


def lr_share(step: int, *, steps: int, warmup: int, curve: Curve) -> float:
    """Return the share of the highest learning rate at `step` (from 0) of `steps`.

    The share rises linearly for `warmup` steps (`onecycle`: for 3/10 of all, if that is more), and then falls to 1/100
    along half a cosine (Loshchilov and Hutter, "SGDR", arXiv 1608.03983), or stays with `constant`.
    """
    if curve == "onecycle":
        warmup = max(warmup, round(_RISE * steps))
    warmup = min(warmup, steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if curve == "constant":
        return 1.0
    gone = min(1.0, (step - warmup) / max(1, steps - warmup))
    return _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * gone)) / 2


def phase_at(step: int, ends: Sequence[int]) -> tuple[int, int, int]:
    """Return the phase of `step`, the step within it, and the phase's length; phases end before the steps `ends`."""
    start = 0
    for number, end in enumerate(ends):
        if step < end:
            return number, step - start, end - start
        start = end
    raise ValueError(f"step {step} is behind the last phase, which ends at {ends[-1]}")
