"""Batches in the host's memory -> the same on a GPU, copied in the background and normalised there."""

from collections import deque

import torch

from imgdata.backends.options import DType
from imgdata.backends.postprocess import scale_shift
from imgdata.recipes.recipe import Recipe


class ToDevice:
    """Copies in a stream of its own; the caller's stream waits for a batch, the caller's thread does not."""

    def __init__(self, device: str, *, recipe: Recipe | None, dtype: DType, channels_last: bool) -> None:
        """Make the stream; with a `recipe`, uint8 images are normalised by it, to `dtype`, without one they stay."""
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._scale_shift: tuple[torch.Tensor, torch.Tensor] | None = None
        if recipe is not None:
            scale, shift = (torch.from_numpy(values)[:, None, None] for values in scale_shift(recipe))
            self._scale_shift = scale.to(self._device), shift.to(self._device)
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._copied: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    def move(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and labels on the device, for use in the caller's current stream."""
        while self._copied and self._copied[0][0].query():  # type: ignore[no-untyped-call]
            self._copied.popleft()
        # This sets the device too: what is pinned takes no memory of another.
        with torch.cuda.stream(self._stream):
            moved = images.to(self._device, non_blocking=True)
            # The memory must not be filled anew before it was read.
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
            self._copied.append((event, images))
            if self._scale_shift is not None:
                moved = self._normalized(moved, *self._scale_shift)
            # Soft labels are a megabyte, and the thread would wait for it.
            labels = labels.pin_memory().to(self._device, non_blocking=True)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        # Made in the one stream, used in the other: not to be given to others before both are through.
        for tensor in (moved, labels):
            tensor.record_stream(current)
        return moved, labels

    def _normalized(self, images: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Do what `postprocess.write` does: value * scale + shift in float32, rounded once."""
        return (images.float().mul_(scale).add_(shift)).to(self._dtype, memory_format=self._format)
