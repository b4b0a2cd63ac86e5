"""A network, an image, a class -> a heat map of where the network saw it (Grad-CAM); as a picture."""

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from imgdata.errors import MissingExtraError
from imgdata.inference.trained import Trained
from imgdata.recipes.ops import Normalize
from imgdata.storage.atomic import output_error
from imgdata.training.plots import figure, name_of, save_figure


class Explainer:
    """A writer of one picture for each image into a folder."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        """Make the folder. Raises `OutputError`, and `MissingExtraError` where captum or matplotlib is not there."""
        _captum()
        figure(1, 1)
        self._trained = trained
        self._folder = folder
        self._names: Counter[str] = Counter()
        self._layer: nn.Module | None = None
        self._looked = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error, folder) from error

    def save(self, image_CHW: torch.Tensor, index: int, name: str, title: str) -> Path:
        """Write the heat map of one image, as the network got it, for class `index`; return the file.

        The file is named after the image. Files that were there before are replaced. Raises `OutputError`.
        """
        if not self._looked:
            self._layer, self._looked = last_map(self._trained.model, image_CHW[None]), True
        heat_HW = heat_map(self._trained.model, self._layer, image_CHW[None], index)
        path = self._folder / self._file_name(name)
        _draw(pixels_before(image_CHW, self._trained), heat_HW, self._method, title, path)
        return path

    @property
    def _method(self) -> str:
        return "saliency" if self._layer is None else "Grad-CAM"

    def _file_name(self, name: str) -> str:
        stem = re.sub(r"[^\w.-]+", "_", PurePosixPath(name.partition("?")[0]).stem) or "image"
        self._names[stem] += 1
        return f"{stem}.png" if self._names[stem] == 1 else f"{stem}-{self._names[stem]}.png"


def heat_map(model: nn.Module, layer: nn.Module | None, image: torch.Tensor, index: int) -> NDArray[np.float32]:
    """Return how much each place of `image` `(1, 3, H, W)` speaks for class `index`: `(H, W)`, 0 to 1.

    Grad-CAM of `layer` (Selvaraju et al., arXiv 1610.02391), resized to the image; without a layer saliency, the
    largest gradient of the three channels (Simonyan et al., arXiv 1312.6034). Raises `MissingExtraError`.
    """
    captum = _captum()
    with torch.enable_grad():
        if layer is None:
            asks = image.clone().requires_grad_()
            heat = captum.Saliency(model).attribute(asks, target=index).amax(dim=1, keepdim=True)
        else:
            found = captum.LayerGradCam(model, layer).attribute(image, target=index, relu_attributions=True)
            heat = captum.LayerAttribution.interpolate(found, tuple(image.shape[2:]), "bilinear")
    heat_HW: NDArray[np.float32] = heat[0, 0].detach().float().cpu().numpy()
    return heat_HW / max(float(heat_HW.max()), 1e-12)


@torch.no_grad()
def last_map(model: nn.Module, image: torch.Tensor) -> nn.Module | None:
    """Return the last module whose output still has places of the image; None without one.

    Its output is a map `(N, C, H, W)` of more than one place. Transformers have no such module: their features are
    sequences, or have the channels last.
    """
    seen: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            seen.append(module)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        features = getattr(model, "forward_features", model)(image)
    finally:
        for handle in handles:
            handle.remove()
    if (hasattr(model, "forward_features") and features.ndim != 4) or getattr(model, "output_fmt", "NCHW") != "NCHW":
        return None
    # A module that runs several times has several outputs, and captum would take the wrong one.
    runs = Counter(seen)
    return next((module for module in reversed(seen) if runs[module] == 1), None)


def _captum() -> Any:
    try:
        from captum import attr
    except ModuleNotFoundError as error:
        raise MissingExtraError("explanations need captum: pip install 'imgdata[train]'") from error
    return attr


def pixels_before(image_CHW: torch.Tensor, trained: Trained) -> NDArray[np.float32]:
    """Return the image as it was before it was normalized, `(H, W, 3)`, 0 to 1."""
    pixels_HWC: NDArray[np.float32] = image_CHW.detach().float().cpu().numpy().transpose(1, 2, 0)
    normalize = trained.recipe.find(Normalize)
    if normalize is not None:
        pixels_HWC = pixels_HWC * np.array(normalize.std, np.float32) + np.array(normalize.mean, np.float32)
    return pixels_HWC.clip(0, 1)


def _draw(pixels_HWC: NDArray[np.float32], heat_HW: NDArray[np.float32], method: str, title: str, path: Path) -> None:
    drawing = figure(7, 3.9)
    left, right = drawing.subplots(1, 2)
    left.imshow(pixels_HWC)
    left.set_title("what the network gets", fontsize=9)
    # In gray below, so that colours are the heat's alone.
    right.imshow(pixels_HWC.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    right.imshow(heat_HW, cmap="inferno", vmin=0, vmax=1, alpha=0.8 * heat_HW)
    right.set_title(f"where it looks ({method})", fontsize=9)
    for axes in (left, right):
        axes.set_axis_off()
    drawing.suptitle(name_of(title), fontsize=11)
    save_figure(drawing, path)
