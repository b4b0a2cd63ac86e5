"""Pictures `(N, 3, S, S)` -> logits: a residual network of nine layers for sides of 28 to 96 pixels."""

from collections import OrderedDict

import torch
from torch import nn

from imgdata.errors import OptionError
from imgdata.models.cnn import new_classifier

LEAST_SIZE = 8
"""Side in pixels that leaves one pixel behind the third pooling."""
WIDTH = 32
"""Filters of the first layer: 1.6 million parameters. 64, as in the source, has four times as many and as much work."""


class ResNet9(nn.Module):
    """Eight convolutions, two pairs of them with a short cut, and a linear classifier.

    The layout of David Page, "How to train your ResNet", 2018, part 4, which was made to learn CIFAR-10 fast. Unlike
    there, the last pooling takes in all of the picture, so that any size fits, and logits are not scaled. Each
    convolution is 3 x 3, with batch norm and ReLU behind it. All layers run in channels-last memory where the network
    is moved there by `model.to(memory_format=torch.channels_last)`.
    """

    def __init__(self, *, num_classes: int, size: int, dropout: float = 0.0, width: int = WIDTH) -> None:
        """Draw the weights. `size`, the pictures' side in pixels, is only checked. Raises `OptionError`."""
        super().__init__()
        if size < LEAST_SIZE:
            raise OptionError(f"the size for resnet9 must be at least {LEAST_SIZE}, got {size}; use larger pictures")
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 8 * width
        self.stem = _convolution(3, width)
        self.stage1 = nn.Sequential(_halving(width, 2 * width), _Residual(2 * width))
        self.stage2 = _halving(2 * width, 4 * width)
        self.stage3 = nn.Sequential(_halving(4 * width, 8 * width), _Residual(8 * width))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Linear(8 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `(N, 3, H, W)` to logits `(N, num_classes)`."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `(N, 3, H, W)` to `(N, 8 width, H / 8, W / 8)`."""
        features: torch.Tensor = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return features

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map `(N, 8 width, H, W)` to logits, or with `pre_logits` to the `(N, 8 width)` before them."""
        x = self.dropout(self.flatten(self.pool(x)))
        return x if pre_logits else self.classifier(x)

    def get_classifier(self) -> nn.Module:
        """Return the layer that computes logits."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new, untrained one; 0 classes for none, so that `forward` returns features."""
        self.num_classes = num_classes
        self.classifier = new_classifier(next(self.parameters()), self.head_hidden_size, num_classes)


class _Residual(nn.Module):
    """Two convolutions, whose result is added to what went in."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.first = _convolution(filters, filters)
        self.second = _convolution(filters, filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = x + self.second(self.first(x))
        return added


def _convolution(channels: int, filters: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(filters), relu=nn.ReLU()))


def _halving(channels: int, filters: int) -> nn.Sequential:
    """Return a convolution and 2 x 2 max pooling, which halve height and width."""
    return _convolution(channels, filters).append(nn.MaxPool2d(2))
