"""A device -> where its batches are made beside the training, and how they are handed over."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Lane:
    """On a GPU a stream of its own, so that nothing waits for what the training has put into its stream.

    Elsewhere work is done when the call returns, and this does nothing.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """What PyTorch does in the block is done in the stream."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def mark(self) -> torch.cuda.Event | None:
        """The end of what the lane was given so far."""
        return self._stream.record_event() if self._stream is not None else None

    def hand_over(self, images: torch.Tensor, mark: torch.cuda.Event | None) -> torch.Tensor:
        """A tensor that is made once the lane reaches `mark`, for use in the caller's current stream."""
        if mark is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(mark)
            # Made in the one stream, used in the other: not to be given to others before both are through.
            images.record_stream(current)
        return images
