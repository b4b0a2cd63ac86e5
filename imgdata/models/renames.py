"""State dicts of other makers -> the same tensors under the names, and in the shapes, of timm's network."""

import re

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]

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
"""Of blocks that begin with the depthwise convolution."""

_VGG_LAYERS = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
_VGG_SHAPES = {"classifier.0.weight": (-1, 512, 7, 7), "classifier.3.weight": (-1, 4096, 1, 1)}


def timm_names(state: Tensors, model: nn.Module) -> Tensors:
    """`state` for `model`; unchanged where it is nobody's that is known here.

    Known are EfficientNet-Lite of the package `efficientnet_lite_pytorch`, and torchvision's VGG.
    """
    if "_conv_stem.weight" in state and hasattr(model, "blocks"):
        places = _block_places(model)
        return {_lite_name(name, places, state): tensor for name, tensor in state.items()}
    if "classifier.6.weight" in state and hasattr(model, "pre_logits"):
        return dict(_vgg(name, tensor) for name, tensor in state.items())
    return state


def _block_places(model: nn.Module) -> list[str]:
    """Where the blocks, counted through by the package, lie in timm's stages: `0.0`, `1.0`, `1.1`, ..."""
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
    """Dense layers are convolutions in timm, so that other picture sizes fit."""
    layer, _, kind = name.rpartition(".")
    shape = _VGG_SHAPES.get(name)
    return f"{_VGG_LAYERS.get(layer, layer)}.{kind}", tensor if shape is None else tensor.reshape(shape)
