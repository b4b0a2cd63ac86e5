"""A network, one crop of each picture or several -> its outputs: the mean over crops and mirror images."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from imgdata.training.task import Task


def outputs_of(model: nn.Module, crops: Sequence[torch.Tensor], *, flip_test: bool, task: Task) -> torch.Tensor:
    """Return the outputs of each picture, `(N, outputs)`, from its `crops`, each `(N, C, H, W)`.

    With `flip_test` those of a crop are the mean of its outputs and its mirror image's. Over several crops, outputs of
    classes are the logarithm of the mean of the softmax, so that their softmax is that mean (Krizhevsky, Sutskever and
    Hinton, "ImageNet classification with deep convolutional neural networks", 2012); those of several classes are the
    logit of the mean of the sigmoid, and those of numbers their mean.
    """
    found = [_of_one(model, images, flip_test) for images in crops]
    if len(found) == 1:
        return found[0]
    outputs_VNC = torch.stack([outputs_NC.float() for outputs_NC in found])
    if task.is_classes:
        return _log_mean(outputs_VNC.log_softmax(dim=2))
    if task.kind == "multi-label":
        # From both logarithms: a probability near 1 has no bits left for what is missing to it.
        of = nn.functional.logsigmoid
        return _log_mean(of(outputs_VNC)) - _log_mean(of(-outputs_VNC))
    return outputs_VNC.mean(dim=0)


def _of_one(model: nn.Module, images: torch.Tensor, flip_test: bool) -> torch.Tensor:
    outputs_NC: torch.Tensor = model(images)
    return (outputs_NC + model(images.flip(-1))) / 2 if flip_test else outputs_NC


def _log_mean(logarithm_VNC: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean over the first axis."""
    return logarithm_VNC.logsumexp(dim=0) - math.log(len(logarithm_VNC))
