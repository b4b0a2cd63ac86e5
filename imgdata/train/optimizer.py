"""A network, settings -> its parameters in groups, and the optimiser; which of them learn."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from imgdata.train.defaults import DecidedOptions


def make_optimizer(model: nn.Module, options: DecidedOptions) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum or AdamW over all parameters; `options` are decided.

    Weight decay leaves norms and biases out (all parameters of one dimension, and those that the network names), as in
    He et al., "Bag of tricks for image classification", 2018 (arXiv 1812.01187). Each group has `lr_share`, what its
    learning rate is of the run's: `backbone_lr` for all but the classifier, where that came with weights.
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
    """Let all but the classifier stay as it is, or learn again."""
    head = _head_ids(model)
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen or id(parameter) in head)


def train_mode(model: nn.Module, frozen: bool) -> None:
    """Training mode; with `frozen` for the classifier alone, so that batch statistics of the rest stay as they are."""
    model.train()
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
                    "lr_share": 1.0 if of_head or not transfers else options.backbone_lr,
                }


def _head_ids(model: nn.Module) -> set[int]:
    return {id(parameter) for head in _heads(model) for parameter in head.parameters()}


def _heads(model: nn.Module) -> Sequence[nn.Module]:
    """The classifier; of networks that were distilled both."""
    head = model.get_classifier()  # type: ignore[operator]
    return head if isinstance(head, Sequence) else (head,)
