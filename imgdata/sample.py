"""The units that flow: a reference to a raw sample, and a sample with its bytes.

Axis suffixes of array names, here and everywhere: N samples, H height, W width, C channels.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from imgdata.errors import ImageError, MissingExtraError, OptionError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWN = {"jpeg": "image/jpeg", "png": "image/png"}
"""Formats that notebooks show as they are."""


class ClassName(NamedTuple):
    """One class: its `id` in the raw dataset (a folder name, a wnid) and a readable `name`.

    The class index is the position in the tuple of classes.
    """

    id: str
    name: str


def fields_of(value: object) -> dict[str, object]:
    """Return the fields of a `json` member: the object that it is; a list, text or number is the one field `json`."""
    return value if isinstance(value, dict) else {"json": value}


def mask_numbers(data: bytes) -> "NDArray[Any]":
    """Return the whole number of each pixel of an encoded mask, `(H, W)`: uint8, uint16 or int32.

    Of a palette it is the index, of gray the value as written: 0 to 3 for gray of 2 bits. Raises `ImageError` where the
    bytes can't be decoded, or have several channels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            return pixel_numbers(opened, data[24] if data[:8] == _PNG else 8)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged bytes.
        reason = "too-large" if isinstance(error, Image.DecompressionBombError) else "corrupt"
        raise ImageError(reason, str(error)) from error


def pixel_numbers(opened: "Image", bits: int) -> "NDArray[Any]":
    """Return `mask_numbers` of an image that Pillow has opened; a gray PNG has so many `bits`. Raises `ImageError`."""
    import numpy as np

    mode = opened.mode
    if mode in ("1", "P"):
        return np.asarray(opened).astype(np.uint8)
    if mode == "L":
        # Pillow stretches gray of 2 and 4 bits to 0 ... 255.
        return np.asarray(opened) // {2: np.uint8(85), 4: np.uint8(17)}.get(bits, np.uint8(1))
    if mode.startswith("I;16"):
        return np.asarray(opened).astype(np.uint16)
    if mode == "I":
        return np.asarray(opened).astype(np.int32)
    raise ImageError("unsupported", f"a mask must be gray, or have a palette, got {mode}")


class SampleRef(NamedTuple):
    """The place of one raw sample's bytes, and what is known of the sample without reading them.

    A tuple, since many are made: that takes a third of the time of a frozen dataclass.
    """

    name: str
    """Unique, readable name inside the source, such as `train/n01440764/n01440764_10026.JPEG`."""
    key: str
    """Key in the shards: `[A-Za-z0-9_/-]+`, unique in the dataset (in older ones, in its split)."""
    label: int
    """Class index; -1 when the sample has no label."""
    size: int
    """Bytes of the encoded image; an estimate where the listing says so."""
    container: int = 0
    """Number of the container file of the reader that holds the sample; 0 for one file a sample."""
    offset: int = 0
    """Start of the sample in its container: a byte, or a row for arrays and tables."""
    fields: str = ""
    """Further columns as one JSON object (`json` member); empty when there are none."""
    state: int = 0
    """Hash of the modification time, size and inode that the sample's file had when it was listed; 0: not known."""
    members: "tuple[SampleRef, ...]" = ()
    """Places of the sample's further images, in the order of the listing's; without a name for one that it lacks."""


@dataclass(frozen=True, slots=True, repr=False)
class Sample:
    """One sample of a finished dataset, with its encoded image."""

    key: str
    image: bytes
    """The encoded image, as stored in the shard."""
    format: str
    """Format of the bytes: `jpeg`, `png`, `webp`, ..."""
    label: int
    """Class index; -1 when the sample has no label."""
    fields: dict[str, object]
    """The `json` member; empty when the shards have none."""
    members: dict[str, bytes] = field(default_factory=dict)
    """Further encoded images, such as `mask`, by name; one that the sample lacks is left out."""

    def __repr__(self) -> str:
        members = "".join(f", {name} {len(data):,} bytes" for name, data in self.members.items())
        fields = f", fields={self.fields!r}" if self.fields else ""
        return f"<Sample {self.key}: {self.format}, {len(self.image):,} bytes{members}, label {self.label}{fields}>"

    def pil(self) -> "Image":
        """Return the picture, decoded by Pillow to RGB; EXIF orientation is left alone, as by the loader.

        Raises `ImageError` where it can't be decoded.
        """
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.image)) as opened:
                return opened.convert("RGB")
        except Image.DecompressionBombError as error:
            raise ImageError("too-large", f"{self.key}: {error}") from error
        except Exception as error:
            # Pillow's decoders raise nearly anything on damaged bytes.
            raise ImageError("corrupt", f"{self.key}: {error}") from error

    def array(self) -> "NDArray[np.uint8]":
        """Return the pixels of `pil`, uint8 `(H, W, 3)`. Raises `ImageError`."""
        import numpy as np

        return np.asarray(self.pil())

    def array_of(self, name: str) -> "NDArray[Any]":
        """Return the whole numbers of the mask `name`, `(H, W)`, as `mask_numbers` reads them.

        Raises `KeyError` where the sample has no such member, `ImageError` where that is no mask.
        """
        if name not in self.members:
            there = ", ".join(self.members) or "none"
            raise KeyError(f"sample {self.key} has no further image {name!r}; there are: {there}")
        try:
            return mask_numbers(self.members[name])
        except ImageError as error:
            raise ImageError(error.reason, f"{self.key} ({name}): {error.detail}") from error

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Show the picture in a notebook, where browsers know its format; else the text alone."""
        shown = {"text/plain": repr(self)}
        kind = _SHOWN.get(self.format)
        return shown if kind is None else {**shown, kind: base64.b64encode(self.image).decode()}


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One rank's part of a global batch: `images, labels = batch`; `len(batch)` is its number of samples."""

    images: "torch.Tensor"
    """uint8, float16 or float32 `(N, C, H, W)`, on the loader's device; a tuple of such tensors, one for each view,
    where the recipe makes several: `views` has both as a tuple."""
    labels: "torch.Tensor"
    """int64 `(N,)`, -1 for none; float32 `(N, num_classes)` where the recipe mixes samples, or they have several
    classes or shares of classes; float32 `(N,)` or `(N, D)` where the target is a number or several."""
    positions: "torch.Tensor"
    """Positions in the split, int64 `(N,)`, in the processor's memory."""
    valid: "torch.Tensor"
    """Mask of valid samples, not padding or skipped images: bool `(N,)`, in the processor's memory."""
    columns: "Mapping[str, torch.Tensor | list[Any] | tuple[Any, ...]]" = field(default_factory=dict)
    """The columns that the loader was asked for, by name. On the loader's device: whole numbers int64 `(N,)`, numbers
    float32 `(N,)`, truths bool `(N,)`, lists of one length `(N, D)`. In the processor's memory: a list of texts, of
    tensors for lists of several lengths, of lists of texts, or of JSON values.

    What moves with the pictures, on the loader's device: masks uint8 or int32 `(N, H, W)`, further images
    `(N, C, H, W)`, `boxes` a list of N tensors float32 `(M, 4)`, `keypoints` of `(M, K, 3)`; where there are several
    views a tuple with one of these for each view."""
    joint: "Mapping[str, str]" = field(default_factory=dict)
    """What each of the columns that moves with the pictures is: `mask`, `image`, `boxes`, `keypoints` or `field`."""
    read_keys: "Callable[[NDArray[np.int64]], list[str]] | None" = None
    """What `keys` asks for the keys at positions; None for batches without any."""

    @property
    def views(self) -> "tuple[torch.Tensor, ...]":
        """The images of each view, of the same samples in the same order; one tensor where there is one view."""
        images: object = self.images
        return images if isinstance(images, tuple) else (self.images,)

    @property
    def keys(self) -> list[str]:
        """Keys of the samples, of padding and skipped images too; read from the index when it is asked for them."""
        return [] if self.read_keys is None else self.read_keys(self.positions.numpy())

    def __iter__(self) -> "Iterator[torch.Tensor]":
        return iter((self.images, self.labels))

    def __getitem__(self, part: int) -> "torch.Tensor":
        """Return the images for 0, the labels for 1, as a tuple of both would."""
        return (self.images, self.labels)[part]

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        *views, labels = (
            f"{str(one.dtype).removeprefix('torch.')} {tuple(one.shape)}" for one in (*self.views, self.labels)
        )
        images, valid = " and ".join(views), int(self.valid.sum())
        return f"<Batch images {images} on {self.views[0].device}, labels {labels}, {valid} of {len(self)} valid>"

    def to(self, device: "str | torch.device", *, non_blocking: bool = False) -> "Batch":
        """Return the batch with images and labels on `device`, without a copy where they already are on it.

        Lightning, Accelerate and others move a batch by this, with the columns that are tensors. Positions and `valid`
        stay in the processor's memory.
        """
        moved = tuple(images.to(device, non_blocking=non_blocking) for images in self.views)
        return replace(
            self,
            images=moved if isinstance(self.images, tuple) else moved[0],
            labels=self.labels.to(device, non_blocking=non_blocking),
            columns={
                name: _moved(column, device, non_blocking, lists=name in self.joint)
                for name, column in self.columns.items()
            },
        )

    def tv_tensors(self) -> "list[dict[str, Any]]":
        """Return a dict for each sample, as torchvision's operators (version 2) and detectors take it.

        `image` is a `tv_tensors.Image`, masks are `Mask`, boxes `BoundingBoxes` in XYXY, keypoints `KeyPoints`, all of
        the picture's size; `labels` are the classes of boxes, or the label of the sample where there are no boxes. Of
        keypoints `visibility` is apart. Raises `OptionError` for several views, `MissingExtraError` without
        torchvision.
        """
        if isinstance(self.images, tuple):
            raise OptionError(f"tv_tensors must be asked of batches of one view, got {len(self.views)} views")
        try:
            from torchvision import tv_tensors
        except ImportError as error:
            raise MissingExtraError("tv_tensors needs torchvision: pip install 'imgdata[train]'") from error
        made: list[dict[str, Any]] = []
        for row in range(len(self)):
            image, size = self.images[row], tuple(self.images.shape[-2:])
            sample: dict[str, Any] = {"image": tv_tensors.Image(image), "labels": self.labels[row]}
            for name, kind in self.joint.items():
                value = self.columns[name][row]
                if kind == "mask":
                    sample[name] = tv_tensors.Mask(value)
                elif kind == "image":
                    sample[name] = tv_tensors.Image(value)
                elif kind == "boxes":
                    sample[name] = tv_tensors.BoundingBoxes(value, format="XYXY", canvas_size=size)
                elif kind == "keypoints":
                    if not hasattr(tv_tensors, "KeyPoints"):
                        raise MissingExtraError(
                            "keypoints need torchvision 0.23 or later, which has KeyPoints: upgrade it"
                        )
                    sample[name] = tv_tensors.KeyPoints(value[..., :2], canvas_size=size)
                    sample["visibility"] = value[..., 2]
                else:
                    sample["labels" if name == "box_labels" else name] = value
            made.append(sample)
        return made


def _moved(column: Any, device: "str | torch.device", non_blocking: bool, *, lists: bool) -> Any:
    """Return a column of a batch on a device; of lists only those that move with the pictures (`lists`)."""
    if isinstance(column, list) and not lists:
        return column
    if isinstance(column, list | tuple):
        return type(column)(_moved(one, device, non_blocking, lists=lists) for one in column)
    return column.to(device, non_blocking=non_blocking)
