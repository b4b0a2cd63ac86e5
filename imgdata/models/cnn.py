"""Pictures `(N, 3, S, S)` -> logits: the small convolutional network of textbooks."""

from collections import OrderedDict

import torch
from torch import nn

from imgdata.errors import OptionError

LEAST_SIZE = 10
"""Side in pixels that leaves one pixel behind the second pooling."""
_FILTERS = 32, 64
_DENSE = 128


class CNN(nn.Module):
    """Two convolutions, each with a pooling behind it, and two dense layers.

    `forward` calls the children one after the other, in their order, and does nothing else. For pictures of 64 x 64:

    | child | out of it, `(C, H, W)` |
    |---|---|
    | `conv1`: 3 x 3 without margins, ReLU | `(32, 62, 62)` |
    | `pool1`: largest of 2 x 2 | `(32, 31, 31)` |
    | `conv2`: 3 x 3 without margins, ReLU | `(64, 29, 29)` |
    | `pool2`: largest of 2 x 2 | `(64, 14, 14)` |
    | `flatten` | `(12544,)` |
    | `dense`: ReLU, dropout | `(128,)` |
    | `classifier` | `(num_classes,)` |
    """

    def __init__(self, *, num_classes: int, size: int, dropout: float = 0.0) -> None:
        """Draw the weights. `size` is the pictures' side in pixels; another one is another network.

        Raises `OptionError` for pictures that are too small.
        """
        super().__init__()
        if size < LEAST_SIZE:
            raise OptionError(f"the size for cnn must be at least {LEAST_SIZE}, got {size}; use larger pictures")
        # What a convolution leaves of a side is 2 less, what a pooling leaves of it the half, rounded down.
        side = ((size - 2) // 2 - 2) // 2
        self.num_classes = num_classes
        self.num_features = _FILTERS[1]
        self.head_hidden_size = _DENSE
        self.conv1 = _convolution(3, _FILTERS[0])
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = _convolution(*_FILTERS)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.dense = nn.Sequential(
            OrderedDict(linear=nn.Linear(_FILTERS[1] * side**2, _DENSE), relu=nn.ReLU(), dropout=nn.Dropout(dropout))
        )
        self.classifier: nn.Module = nn.Linear(_DENSE, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `(N, 3, size, size)` to logits `(N, num_classes)`."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Map float `(N, 3, size, size)` to `(N, 64, side, side)`, the output of the second pooling."""
        features: torch.Tensor = self.pool2(self.conv2(self.pool1(self.conv1(x))))
        return features

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map `(N, 64, side, side)` to logits, or with `pre_logits` to the `(N, 128)` before them."""
        x = self.dense(self.flatten(x))
        return x if pre_logits else self.classifier(x)

    def get_classifier(self) -> nn.Module:
        """Return the layer that computes logits."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new, untrained one; 0 classes for none, so that `forward` returns features."""
        self.num_classes = num_classes
        self.classifier = new_classifier(next(self.parameters()), _DENSE, num_classes)


def new_classifier(like: torch.Tensor, features: int, num_classes: int) -> nn.Module:
    """Return a linear layer on the device and of the dtype of `like`; for 0 classes an identity."""
    if num_classes == 0:
        return nn.Identity()
    return nn.Linear(features, num_classes, device=like.device, dtype=like.dtype)


def _convolution(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, filters, 3), relu=nn.ReLU()))
