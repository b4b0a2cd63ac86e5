"""A split -> a map-style PyTorch dataset of decoded images and labels, in place of torchvision's `ImageFolder`."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from imgdata.dataset.index import Index
from imgdata.dataset.manifest import MAX_PIXELS
from imgdata.dataset.targets import Targets
from imgdata.errors import ImageError
from imgdata.images.decode import refuse_large
from imgdata.images.pillow import open_image, pillow_errors
from imgdata.images.probe import probe
from imgdata.sample import ClassName


class Encoded(Protocol):
    """A split, as far as it is used here."""

    name: str
    index: Index

    def read(self, position: int, /) -> bytes:
        """Return the encoded image at `position`."""
        ...

    def __len__(self) -> int: ...


class TorchImages(torch.utils.data.Dataset[tuple[Any, Any]]):
    """Images of a split, each read from its tar and decoded to RGB when asked for.

    For `torch.utils.data.DataLoader` with `shuffle=True` and any number of worker processes. Like
    `ImageFolder`, it leaves EXIF orientation alone, and has `classes`, `class_to_idx` and `targets`.
    """

    def __init__(
        self,
        split: Encoded,
        classes: tuple[ClassName, ...],
        transform: Callable[[Image.Image], Any] | None,
        *,
        max_pixels: int = MAX_PIXELS,
        values: Targets | None = None,
    ) -> None:
        self.split = split
        self._values = values
        self.max_pixels = max_pixels
        self.classes = [one.id for one in classes]
        self.class_to_idx = {one.id: index for index, one in enumerate(classes)}
        self.transform = transform

    @property
    def targets(self) -> list[int]:
        """Class index of every image; -1 for none."""
        labels: list[int] = self.split.index.label_N.tolist()
        return labels

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> tuple[Any, Any]:
        """Return the image at `position`, transformed if there is a transform, and its class index.

        Where the target isn't one class it takes the index's place, as a tensor float32 `(C,)`, `()` or `(D,)`.

        Raises `IndexError`, `ShardError`, and `ImageError` for an image that can't be decoded or has more than
        `max_pixels`.
        """
        image = self._decoded(position)
        shown = self.transform(image) if self.transform else image
        if self._values is None:
            return shown, int(self.split.index.label_N[position])
        return shown, torch.from_numpy(self._values.values(np.array([position % len(self)])))[0]

    def _decoded(self, position: int) -> Image.Image:
        data = self.split.read(position)
        try:
            info = probe(data)
            refuse_large(info, self.max_pixels)
            with pillow_errors(), open_image(data, info.format) as opened:
                return opened.convert("RGB")
        except ImageError as error:
            key = self.split.index.row(position % len(self)).key
            raise ImageError(error.reason, f"{key} in split {self.split.name}: {error.detail}") from error
