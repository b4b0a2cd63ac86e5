"""A shape and a dtype -> memory for one batch, which is used again once nobody holds it any more."""

import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.backends.loans import Loans


class Buffers:
    """Memory of batches, reused: fresh pages cost as much time as copying a batch into them.

    An array that was handed out is free again when it and all its views are gone, tensors of `torch.from_numpy`
    included. So nobody who keeps a batch sees it change. Safe in threads.
    """

    def __init__(self, *, keep: int, pinned: bool = False) -> None:
        """At most `keep` free arrays wait to be used again; `pinned` ones can be copied to a GPU in the background."""
        self._free: deque[NDArray[Any]] = deque(maxlen=keep)
        self._loans: Loans[NDArray[Any]] = Loans()
        self._pinned = pinned
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """An array of `shape` whose contents are anything."""
        with self._lock:
            self._free.extend(self._loans.fetch())
            # Those of another size are of an epoch with another size, and are let go.
            fitting = [memory for memory in self._free if memory.shape == shape and memory.dtype == dtype]
            memory = fitting.pop() if fitting else self._new(shape, dtype)
            self._free.clear()
            self._free.extend(fitting)
            # NumPy makes the owner of the memory the base of every view of a view. Behind a memoryview it can't see
            # the owner, so all views hold on to this array.
            handed = np.asarray(memoryview(memory))  # type: ignore[arg-type]
            self._loans.lend(memory, handed)
            return handed

    def _new(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return _pinned(shape, dtype) if self._pinned else np.empty(shape, dtype)


def _pinned(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    import torch

    memory: NDArray[Any] = torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True).numpy()
    return memory
