"""A name -> another loader: where it is written, what it needs, what it can't do; imports none of them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from imgdata.backends.dali.available import refusal as dali_refusal
from imgdata.backends.options import DType
from imgdata.measure import torch_codec
from imgdata.recipes.choices import PIXELS
from imgdata.recipes.functions import Apply
from imgdata.recipes.moves import RandomResize, ScaleJitter
from imgdata.recipes.ops import (
    CenterCrop,
    CutMix,
    Cutout,
    HorizontalFlip,
    MixUp,
    MixUpOrCutMix,
    Normalize,
    PadRandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    VerticalFlip,
)
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.sizes import Ramp, Schedule

MOST_AT_ONCE = 4
"""Batches that are decoded on a GPU at the same time, at most: more threads would only wait for Python's lock."""
_NOT_IN_WORKERS = (Cutout, MixUp, CutMix, MixUpOrCutMix)
_BESIDE_TORCHVISION = (
    RandomResizedCrop,
    Resize,
    CenterCrop,
    PadRandomCrop,
    HorizontalFlip,
    VerticalFlip,
    RandomResize,
    ScaleJitter,
    *PIXELS,
    Normalize,
    RandomErasing,
)
_DALI = (RandomResizedCrop, Resize, CenterCrop, HorizontalFlip, Normalize)


def _torchvision_refuses(recipe: Recipe, dtype: DType | None, device: str) -> str | None:
    if find_spec("torchvision") is None:
        return "torchvision is not installed: pip install 'imgdata[train]'"
    if any(isinstance(function, Apply) for function in recipe.functions):
        return "what is written for it has no Apply"
    for op in recipe.ops:
        if isinstance(op, _NOT_IN_WORKERS):
            return f"torchvision's transforms of one image have no {type(op).__name__}"
        if not isinstance(op, _BESIDE_TORCHVISION):
            return f"what is written for it has no {type(op).__name__}"
        if isinstance(op, RandomErasing) and dtype == "uint8":
            return "torchvision erases after Normalize, and uint8 batches are not normalised"
    return _scheduled(recipe)


def _batched_refuses(recipe: Recipe, dtype: DType | None, device: str) -> str | None:
    if device == "mps":
        return "it decodes on NVIDIA's GPUs and on the processor alone"
    return _torchvision_refuses(recipe, dtype, device)


def _torchcodec_refuses(recipe: Recipe, dtype: DType | None, device: str) -> str | None:
    if not torch_codec.is_installed():
        return torch_codec.MISSING
    return _batched_refuses(recipe, dtype, device)


def _webdataset_refuses(recipe: Recipe, dtype: DType | None, device: str) -> str | None:
    if find_spec("webdataset") is None:
        return "webdataset is not installed: pip install webdataset"
    return _torchvision_refuses(recipe, dtype, device)


def _dali_refuses(recipe: Recipe, dtype: DType | None, device: str) -> str | None:
    reason = dali_refusal(device)
    if reason is not None:
        return reason
    if dtype == "bfloat16":
        return "it has no bfloat16"
    for op in recipe.ops:
        if not isinstance(op, _DALI):
            return f"the pipeline written for it has no {type(op).__name__}"
    if recipe.find(RandomResizedCrop) is None and recipe.find(CenterCrop) is None:
        return "the pipeline written for it has no Resize without a crop"
    return _scheduled(recipe)


def _scheduled(recipe: Recipe) -> str | None:
    if any(isinstance(getattr(op, "size", None), Schedule | Ramp) for op in recipe.ops):
        return "it has no sizes that change from epoch to epoch"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """One loader to compare with, in its best usual configuration."""

    name: str
    place: str
    """`module:function` of this package, that opens it."""
    configuration: str
    """Setup of the loader; `{threads}` and `{workers}` are replaced by their number and the word."""
    refuses: Callable[[Recipe, DType | None, str], str | None]
    """Recipe, dtype, device -> why it can't do that here, with the way out; None if it can."""

    def configured(self, threads: int) -> str:
        """Return how it is set up with so many threads or worker processes."""
        end = ("", "") if threads == 1 else ("s", "es")
        return self.configuration.format(threads=f"{threads} thread{end[0]}", workers=f"{threads} process{end[1]}")


_BATCHED = (
    "images read by our index, {library}'s decode_jpeg of whole batches on the device, v2 operators there on uint8 "
    f"tensors, {{{{threads}}}} (on a GPU {MOST_AT_ONCE} at most) with a batch each"
)
READ_TARS = ("webdataset", "dali", "dali-fused")
"""Loaders that read shards by themselves."""
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="torchvision",
            place="torch_peers:torchvision",
            configuration="images read by our index, decode_image and v2 operators on uint8 tensors, DataLoader with "
            "persistent workers, {workers}",
            refuses=_torchvision_refuses,
        ),
        Peer(
            name="torchvision-pil",
            place="torch_peers:torchvision_pil",
            configuration="Dataset.torch, v2 operators on PIL images, DataLoader with persistent workers, {workers}",
            refuses=_torchvision_refuses,
        ),
        Peer(
            name="torchvision-batched",
            place="batched_peers:torchvision",
            configuration=_BATCHED.format(library="torchvision"),
            refuses=_batched_refuses,
        ),
        Peer(
            name="torchcodec",
            place="batched_peers:torchcodec",
            configuration=_BATCHED.format(library="TorchCodec"),
            refuses=_torchcodec_refuses,
        ),
        Peer(
            name="webdataset",
            place="torch_peers:webdataset",
            configuration="shards in random order, a shuffle buffer of 1,000, decode_image and v2 operators on uint8 "
            "tensors, batched in the workers of WebLoader, {workers}",
            refuses=_webdataset_refuses,
        ),
        Peer(
            name="dali",
            place="dali_peer:dali",
            configuration="fn.readers.webdataset with our .idx files and a shuffle buffer of 1,024, its own random "
            "crop (by the decoder; after it where a trial finds that safer or faster), antialiased resize, {threads}; "
            "chroma as by its default; labels are not parsed",
            refuses=_dali_refuses,
        ),
        Peer(
            name="dali-fused",
            place="dali_peer:dali_fused",
            configuration="the same as dali, always with the decoder that crops, which ends the process on some GPUs, "
            "{threads}",
            refuses=_dali_refuses,
        ),
    )
}
"""All that can be compared with, by name."""
ALL = tuple(name for name in PEERS if name != "dali-fused")
"""Names for a comparison with everything: without what differs from `dali` on a GPU alone, and ends some processes."""
