"""A network's name, classes, picture size, weights -> the network."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgdata.errors import OptionError
from imgdata.extras import require_torch
from imgdata.models.catalogue import OWN, load_timm, timm_config
from imgdata.models.inputs import model_input

if TYPE_CHECKING:
    from torch import nn

_ANY = 10
"""Classes of a classifier that those of the weights replace."""


def create_model(
    name: str,
    *,
    num_classes: int | None,
    size: int,
    weights: Path | None = None,
    pretrained: bool = False,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> "nn.Module":
    """Build the network on the processor, in training mode, for pictures of `size` x `size` pixels.

    Weights that are not loaded are drawn from PyTorch's global generator: `torch.manual_seed` decides them. Weights of
    another number of classes are loaded whole, and the classifier is then replaced by a new one.

    Args:
        name: `cnn`, `resnet9`, or any of timm's, such as `resnet50`.
        num_classes: How many logits the network has; None: as many as the weights, which are then needed.
        size: Side of the pictures in pixels.
        weights: A file to load: .pth, .pt, .bin or .safetensors.
        pretrained: Load the weights of timm's hub, which needs a network connection or the hub's cache.
        dropout: Share of the features that are dropped before the classifier in training.
        drop_path: Share of the residual branches that are dropped in training, at the last of them.

    Raises:
        OptionError: An unknown name, a size or a rate that the network can't have, weights that don't fit or can't be
            downloaded.
        MissingExtraError: PyTorch or timm is needed.
    """
    require_torch("a network")
    if num_classes is not None and num_classes < 1:
        raise OptionError(f"num_classes must be at least 1, got {num_classes}")
    if num_classes is None and weights is None and not pretrained:
        raise OptionError("num_classes must be given for a network without weights, got None")
    if pretrained and weights is not None:
        raise OptionError(
            f"weights must come from a file or from the hub, got both; leave out --pretrained or {weights}"
        )
    if name in OWN:
        model = _own(
            name, num_classes=num_classes, size=size, dropout=dropout, drop_path=drop_path, pretrained=pretrained
        )
    else:
        rates = {"drop_rate": dropout, "drop_path_rate": drop_path}
        model = _from_timm(name, num_classes=num_classes, size=size, pretrained=pretrained, rates=rates)
    if weights is not None:
        from imgdata.models.weights import load_weights

        load_weights(model, weights, num_classes=num_classes, size=size, native=model_input(name).size)
    return model


def _own(
    name: str, *, num_classes: int | None, size: int, dropout: float, drop_path: float, pretrained: bool
) -> "nn.Module":
    from imgdata.models.cnn import CNN
    from imgdata.models.resnet9 import ResNet9

    if drop_path:
        raise _no_rate("drop_path", name, drop_path)
    if pretrained:
        raise OptionError(f"pretrained must be left out for {name}, of which there are no weights; use --weights FILE")
    network = CNN if name == "cnn" else ResNet9
    return network(num_classes=_ANY if num_classes is None else num_classes, size=size, dropout=dropout)


def _from_timm(
    name: str, *, num_classes: int | None, size: int, pretrained: bool, rates: dict[str, float]
) -> "nn.Module":
    config = timm_config(name)
    if pretrained and not config.has_weights:
        raise OptionError(
            f"pretrained must be left out for {name}, of which the hub has no weights; use --weights FILE"
        )
    options: dict[str, Any] = {key: rate for key, rate in rates.items() if rate}
    if config.fixed_input_size:
        options["img_size"] = size
    native = model_input(name).size
    try:
        # timm takes None for as many as the weights of the hub are for.
        model = _call_timm(name, num_classes=num_classes, pretrained=pretrained, **options)
        if size != native:
            _try(model, size)
    except (AssertionError, RuntimeError, ValueError) as error:
        if size == native:
            raise
        raise OptionError(
            f"the size must be one that {name} can take, such as {native}, got {size}: {error}"
        ) from error
    return model


def _call_timm(name: str, **options: Any) -> "nn.Module":
    """Call timm for the network. Raises `OptionError` for a rate that it doesn't know, and for weights it can't get."""
    try:
        with _hub_said_once():
            model: nn.Module = load_timm().create_model(name, **options)
    except TypeError as error:
        for key, option in (("drop_rate", "dropout"), ("drop_path_rate", "drop_path")):
            if f"unexpected keyword argument '{key}'" in str(error):
                raise _no_rate(option, name, options[key]) from error
        raise
    except OSError as error:
        # All faults of the hub's client are OSErrors: no network, refused, not in the cache.
        first = str(error).strip().partition(". ")[0]
        raise OptionError(
            f"the weights of {name} must be in the cache or within reach, got: {first}; without a network give a file: "
            "--weights FILE"
        ) from error
    return model


@contextlib.contextmanager
def _hub_said_once() -> Iterator[None]:
    """Show only the first of the hub client's messages, which it repeats for each of its dozen attempts in a minute."""
    asked = False

    def first(record: logging.LogRecord) -> bool:
        nonlocal asked
        text = record.getMessage()
        if text.startswith("Retrying in ") or (asked and " thrown while requesting " in text):
            return False
        if " thrown while requesting " in text:
            reason = text.partition(" thrown while requesting ")[0]
            record.msg, record.args = f"the hub gives no answer yet ({reason}); asking again for up to a minute", ()
            asked = True
        return True

    # At the handlers: filters of a logger don't see what its children log.
    handlers = list(logging.getLogger("huggingface_hub").handlers)
    for handler in handlers:
        handler.addFilter(first)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(first)


def _try(model: "nn.Module", size: int) -> None:
    """Try one picture: what the network can't compute fails here, and not in the first step of a run."""
    import torch

    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    model.train()


def _no_rate(option: str, name: str, rate: float) -> OptionError:
    return OptionError(f"{option} must be 0 for {name}, which has none, got {rate}; leave it out")
