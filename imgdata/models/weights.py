"""A file of weights -> a state dict, or the network filled with it, strictly; no file can run code."""

import argparse
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgdata.errors import MissingExtraError, OptionError
from imgdata.storage.reading import open_regular

Tensors = dict[str, torch.Tensor]
_NESTS = (
    "ema",
    "model_ema",
    "state_dict_ema",
    "model",
    "state_dict",
    "model_state_dict",
    "module",
)
"""Keys of checkpoints that hold the state dict. Averages come first: a training that computes them validates them."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes of all names: of DistributedDataParallel and averages, of torch.compile, of Lightning."""
_LISTED = 5
_DAMAGES = (AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError, struct.error)
"""Errors that PyTorch raises for pickles that are cut off or have changed bytes, beside `UnpicklingError`."""


def load_weights(model: nn.Module, path: Path, *, num_classes: int | None, size: int, native: int) -> None:
    """Fill `model`, which takes pictures of `size`, with what the file holds, and nothing less.

    With weights of another number of classes the classifier is a new one afterwards; for None it is that of the
    weights. Where a network's position embeddings are for its `native` size, they are resampled. Raises `OptionError`.
    """
    state = timm_names(read_weights(path), model)
    saved_classes = _classes_of(state, model)
    other_classes = saved_classes not in (None, model.num_classes if num_classes is None else num_classes)
    if other_classes:
        model.reset_classifier(saved_classes)  # type: ignore[operator]
    fault = mismatch(model, state)
    resizes = fault is not None and size != native and hasattr(model, "set_input_size")
    if resizes:
        model.set_input_size(img_size=(native, native))  # type: ignore[operator]
        fault = mismatch(model, state)
    if fault is not None:
        raise OptionError(f"{path}: must hold the weights of this network, got {fault}; choose the model that it is of")
    model.load_state_dict(state)
    if resizes:
        model.set_input_size(img_size=(size, size))  # type: ignore[operator]
    if other_classes and num_classes is not None:
        model.reset_classifier(num_classes)  # type: ignore[operator]


def mismatch(model: nn.Module, state: Tensors) -> str | None:
    """Return why `state` can't be the state of `model`: names too few, too many, other shapes. None where it can."""
    wanted = model.state_dict()
    # PyTorch itself fills in this counter, which files from before version 0.4.1 don't have.
    missing = [name for name in wanted if name not in state and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return "; ".join(f"{len(names)} {what} ({_listed(names)})" for what, names in parts if names) or None


def read_weights(path: Path) -> Tensors:
    """Read the state dict in a file of safetensors, or in a checkpoint of PyTorch's, under the network's own names.

    Raises `OptionError` for a file that is neither, is damaged, or asks for more than tensors and plain values; and
    `MissingExtraError`.
    """
    state = _state_in(_read(path))
    if not state:
        raise OptionError(f"{path}: must hold a state dict, got none; save `model.state_dict()`")
    # Of torch.optim.swa_utils.AveragedModel.
    state.pop("n_averaged", None)
    while prefix := next((one for one in _PREFIXES if all(name.startswith(one) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _read(path: Path) -> Any:
    try:
        with open(path, "rb", opener=open_regular) as file:
            start = file.read(9)
    except OSError as error:
        raise OptionError(f"{path}: must be a file of weights, got {error.strerror}; check the path") from error
    # A number of 8 bytes, then JSON; neither zip archives nor pickles have this byte there.
    return _read_safetensors(path) if start[8:] == b"{" else _read_torch(path)


def _read_safetensors(path: Path) -> Tensors:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{path}: needs safetensors: pip install 'imgdata[train]'") from error
    try:
        tensors: Tensors = load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from error
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        # Training scripts save their arguments as well: a Namespace holds plain values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            # PyTorch advises to read such files in the way that runs their code.
            raise _damaged(path, "no pickle that can be read") from error
        raise OptionError(
            f"{path}: must hold tensors and plain values alone, got a pickle that asks for {asked[1]}, and such a file "
            "can run any code; where you trust it, save `model.state_dict()` again, best as safetensors"
        ) from error
    except _DAMAGES as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> OptionError:
    first = str(reason).strip().partition("\n")[0]
    return OptionError(
        f"{path}: must be whole, and a .pth, .pt or .bin of PyTorch or a .safetensors, got something else ({first}); "
        "check the path, or get the file again"
    )


def _state_in(content: Any) -> Tensors | None:
    """Return the first state dict in a checkpoint, in the order of `_NESTS`."""
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()):
        return dict(content)
    return next((found for name in _NESTS if (found := _state_in(content.get(name)))), None)


def _classes_of(state: Tensors, model: nn.Module) -> int | None:
    """Return the number of classes that the weights of the classifier are for; None where there are none."""
    head = model.get_classifier()  # type: ignore[operator]
    # Networks that were distilled have two.
    head = head[0] if isinstance(head, Sequence) else head
    name = next(name for name, module in model.named_modules() if module is head)
    weights = [f"{name}.{key}" for key, tensor in head.named_parameters() if tensor.ndim > 1]
    return next((len(state[key]) for key in reversed(weights) if key in state), None)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


_LITE_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Names in blocks that begin with the depthwise convolution."""
_VGG_LAYERS = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
_VGG_SHAPES = {"classifier.0.weight": (-1, 512, 7, 7), "classifier.3.weight": (-1, 4096, 1, 1)}


def timm_names(state: Tensors, model: nn.Module) -> Tensors:
    """Return `state` under the names of `model`; unchanged where its origin is not known here.

    Known are EfficientNet-Lite of the package `efficientnet_lite_pytorch`, and torchvision's VGG.
    """
    if "_conv_stem.weight" in state and hasattr(model, "blocks"):
        places = _block_places(model)
        return {_lite_name(name, places, state): tensor for name, tensor in state.items()}
    if "classifier.6.weight" in state and hasattr(model, "pre_logits"):
        return dict(_vgg(name, tensor) for name, tensor in state.items())
    return state


def _block_places(model: nn.Module) -> list[str]:
    """Return where the blocks, which the package numbers throughout, are in timm's stages: `0.0`, `1.0`, `1.1`, ..."""
    stages = model.get_submodule("blocks").named_children()
    return [f"{stage}.{block}" for stage, blocks in stages for block, _ in blocks.named_children()]


def _lite_name(name: str, places: list[str], state: Tensors) -> str:
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)(\.\w+)", name)
    if found is None:
        layer, _, rest = name.partition(".")
        return f"{_LITE_ENDS.get(layer, layer)}.{rest}"
    number, layer, rest = found.groups()
    names = _LITE_EXPANDING if f"_blocks.{number}._expand_conv.weight" in state else _LITE_FIRST
    if int(number) >= len(places) or layer not in names:
        return name
    return f"blocks.{places[int(number)]}.{names[layer]}{rest}"


def _vgg(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Rename torchvision's VGG: its dense layers are convolutions in timm, so that other picture sizes fit."""
    layer, _, kind = name.rpartition(".")
    shape = _VGG_SHAPES.get(name)
    return f"{_VGG_LAYERS.get(layer, layer)}.{kind}", tensor if shape is None else tensor.reshape(shape)
