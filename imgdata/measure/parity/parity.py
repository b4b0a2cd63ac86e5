"""Pictures, cases -> how far our pixels are from torchvision's, operator by operator and backend by backend."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from imgdata import native
from imgdata.augment.mix import MixParams, mix_params
from imgdata.augment.params import BatchParams, params
from imgdata.backends import postprocess, registry
from imgdata.dataset.manifest import MAX_PIXELS
from imgdata.errors import ImageError, SourceError
from imgdata.images.decode import check, refuse_large
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.images.probe import probe
from imgdata.measure import torch_codec
from imgdata.measure.parity import reference
from imgdata.measure.parity.by_backend import by_backend
from imgdata.measure.parity.by_torchcodec import by_torchcodec
from imgdata.measure.parity.cases import Case
from imgdata.measure.parity.executors import Executor, by_pillow
from imgdata.measure.parity.pictures import Picture, Pictures
from imgdata.recipes.ops import CutMix, Cutout, MixUp, MixUpOrCutMix, Normalize, RandomErasing
from imgdata.recipes.recipe import Recipe

_EPOCH = 0
_FLOATS = (Normalize, RandomErasing, Cutout, MixUp, CutMix, MixUpOrCutMix)
"""Operators that work on floats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Between two sets of values, in steps of 255."""

    mean: float
    """Mean of the absolute differences."""
    within_1: float
    """Share of the values that differ by 1 at most."""
    max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One case, done by one backend."""

    operator: str
    backend: str
    pil: Difference
    """Difference from torchvision with PIL images."""
    tensor: Difference
    """Difference from torchvision with uint8 tensors, for which torchvision has other code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """The whole comparison."""

    images: int
    refused: tuple[str, ...]
    """Pictures that were left out, as `name: reason: detail`."""
    rows: tuple[Row, ...]


def available(*, all_backends: bool = False) -> dict[str, Executor]:
    """Return what can run here, by name: both ways of the reference backend; with `all_backends` all that there is.

    That is every other kind, and TorchCodec with torchvision's operators on tensors, where it is installed.
    Kinds that decode once keep what they decode in the cache folder.
    """
    backends: dict[str, Executor] = {"pillow": by_pillow}
    if native.AVAILABLE:
        backends["native"] = by_backend(registry.reference_kind())
    for kind in registry.KINDS:
        if not kind.is_reference and all_backends and kind.missing("cpu") is None:
            backends[kind.name] = by_backend(kind)
    if all_backends and torch_codec.is_installed():
        backends["torchcodec"] = by_torchcodec
    return backends


def parity(
    pictures: Pictures,
    cases: Sequence[Case],
    *,
    seed: int = 0,
    backends: Mapping[str, Executor] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Parity:
    """Run every case on all pictures by each of `backends` (by default `available`) and by torchvision.

    Both get the same parameters; torchvision gets pictures that Pillow decoded. Those that a loader would refuse are
    left out and named. `progress` gets how many cases are done, and of how many. Raises `SourceError` where no picture
    is left.
    """
    backends = available() if backends is None else backends
    kept: list[Picture] = []
    decoded: list[Image.Image] = []
    refused = list(pictures.refused)
    for picture in pictures.good:
        try:
            decoded.append(_decoded(picture))
        except ImageError as error:
            refused.append(f"{picture.name}: {error}")
        else:
            kept.append(picture)
    if not kept:
        raise SourceError(f"none of {len(refused)} images can be compared; the first: {refused[0]}")
    rows = []
    for done, case in enumerate(cases, start=1):
        rows += _compared(case, kept, decoded, seed, backends)
        progress(done, len(cases))
    return Parity(images=len(kept), refused=tuple(refused), rows=tuple(rows))


def difference(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> Difference:
    """Return the difference of two arrays of one shape, in their own steps."""
    apart = np.abs(ours.astype(np.float32) - theirs.astype(np.float32))
    # A step between normalised values is 1 up to their rounding.
    within_1 = float((apart < 1.001).mean())
    return Difference(mean=float(apart.mean(dtype=np.float64)), within_1=within_1, max=float(apart.max()))


def _decoded(picture: Picture) -> Image.Image:
    """Decode as a user of torchvision does, but only where no backend would refuse the image."""
    info = probe(picture.data)
    refuse_large(info, MAX_PIXELS)
    check(picture.data, info)
    with pillow_errors(), open_image(picture.data, info.format) as image:
        image.load()
        # Changes no pixel of RGB, and Pillow would warn.
        image.info.pop("transparency", None)
        return image.convert("RGB")


def _compared(
    case: Case, pictures: list[Picture], decoded: list[Image.Image], seed: int, backends: Mapping[str, Executor]
) -> list[Row]:
    recipe, count = case.recipe, len(pictures)
    width_N, height_N = np.array([(picture.width, picture.height) for picture in pictures]).T
    batch = params(recipe, width_N, height_N, seed=seed, epoch=_EPOCH, position_N=np.arange(count))
    batch = case.change(batch)
    mix = mix_params(recipe, count, seed=seed, epoch=_EPOCH, offset=0)
    # One at a time: all pictures as tensors would need their memory once more.
    tensors = (torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in decoded)
    pil_NCHW = _theirs(decoded, batch, mix, recipe, seed)
    tensor_NCHW = _theirs(tensors, batch, mix, recipe, seed)
    rows = []
    for name, execute in backends.items():
        windows_NHWC = execute(pictures, batch, recipe)
        if windows_NHWC is None:
            continue
        ours_NCHW = _ours(windows_NHWC, batch, mix, recipe, seed)
        pil, tensor = difference(ours_NCHW, pil_NCHW), difference(ours_NCHW, tensor_NCHW)
        rows.append(Row(operator=case.operator, backend=name, pil=pil, tensor=tensor))
    return rows


def _theirs(
    pictures: Iterable[Image.Image | torch.Tensor], batch: BatchParams, mix: MixParams, recipe: Recipe, seed: int
) -> NDArray[np.generic]:
    """Return torchvision's whole batch `(N, 3, H, W)`, in steps of 255."""
    windows = [reference.window(picture, batch, row, recipe) for row, picture in enumerate(pictures)]
    if not _makes_floats(recipe):
        return torch.stack(windows).numpy()
    images = [
        reference.finished(window, batch, row, recipe, seed=seed, epoch=_EPOCH) for row, window in enumerate(windows)
    ]
    return _in_steps(reference.mixed(torch.stack(images), mix).numpy(), recipe)


def _ours(
    window_NHWC: NDArray[np.uint8], batch: BatchParams, mix: MixParams, recipe: Recipe, seed: int
) -> NDArray[np.generic]:
    """Return our whole batch `(N, 3, H, W)`, in steps of 255, from a backend's windows."""
    if not _makes_floats(recipe):
        return window_NHWC.transpose(0, 3, 1, 2)
    image_NCHW = np.empty((len(batch), 3, batch.height, batch.width), np.float32)
    for row, (window_HWC, image_CHW) in enumerate(zip(window_NHWC, image_NCHW, strict=True)):
        postprocess.write(window_HWC, image_CHW, *postprocess.scale_shift(recipe))
        postprocess.erase(image_CHW, batch, row, recipe, seed=seed, epoch=_EPOCH)
    return _in_steps(postprocess.mix_images(torch.from_numpy(image_NCHW), mix).numpy(), recipe)


def _makes_floats(recipe: Recipe) -> bool:
    return any(isinstance(op, _FLOATS) for op in recipe.ops)


def _in_steps(image_NCHW: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
    """Return values 0 to 1, or normalised values, so that a step of uint8 is 1."""
    normalize = recipe.find(Normalize)
    std_3 = np.array(normalize.std if normalize else (1.0, 1.0, 1.0), np.float32)
    return image_NCHW * (np.float32(255) * std_3[:, None, None])
