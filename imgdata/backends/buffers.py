"""A shape and a dtype -> memory for one batch, which is reused once it is no longer referenced."""

import math
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """Memory of batches, reused: fresh pages cost as much time as copying a batch into them.

    An array that was handed out is free again when it and all its views are gone, tensors of `torch.from_numpy`
    included. So a batch that the caller keeps never changes. Safe in threads.
    """

    def __init__(self, *, keep: int, pinned_for: str | None = None) -> None:
        """Reuse at most `keep` arrays, lent and free; further ones, of a caller who keeps batches, go with the batches.

        A GPU, `pinned_for`, can copy from them in the background.
        """
        self._keep = keep
        self._free: list[NDArray[Any]] = []
        self._loans: Loans[NDArray[Any]] = Loans()
        self._pinned_for = pinned_for
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return an array of `shape` with arbitrary contents."""
        with self._lock:
            self._free.extend(self._loans.fetch())
            # Those of another size are of an epoch with another size, and are let go.
            fitting = [memory for memory in self._free if memory.shape == shape and memory.dtype == dtype]
            if not fitting and len(self._loans) >= self._keep:
                return self._new(shape, dtype)
            memory = fitting.pop() if fitting else self._new(shape, dtype)
            self._free = fitting
            # NumPy makes the owner of the memory the base of every view of a view. Behind a memoryview it can't see
            # the owner, so all views hold on to this array.
            handed = np.asarray(memoryview(memory))  # type: ignore[arg-type]
            self._loans.lend(memory, handed)
            return handed

    def _new(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return _aligned(shape, dtype) if self._pinned_for is None else _pinned(shape, dtype, self._pinned_for)


def _aligned(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return memory that begins at a multiple of 64 bytes: JAX takes it as it is, and copies any other."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 63, np.uint8)
    start = -memory.ctypes.data % 64
    aligned: NDArray[Any] = memory[start : start + size].view(dtype).reshape(shape)
    return aligned


def _pinned(shape: tuple[int, ...], dtype: str, device: str) -> NDArray[Any]:
    import torch

    # Elsewhere it would take memory of the first GPU; and the caller may have made another device the default.
    with torch.cuda.device(device):
        pinned = torch.empty(shape, dtype=getattr(torch, dtype), device="cpu", pin_memory=True)
    memory: NDArray[Any] = pinned.numpy()
    return memory


Thing = TypeVar("Thing")


class Loans(Generic[Thing]):
    """Remembers what is lent until its holder is gone, and then has it to fetch.

    No Python code runs when a holder goes, which is at any place and in any thread: Ctrl-C there would be lost, and a
    lock might be held already. One thread at a time may lend and fetch.
    """

    def __init__(self) -> None:
        self._lent: dict[int, tuple[weakref.ref[Any], Thing]] = {}
        self._ended: deque[weakref.ref[Any]] = deque()

    def __len__(self) -> int:
        """Return how many things are lent, including those that wait to be fetched."""
        return len(self._lent)

    def lend(self, thing: Thing, holder: Any) -> None:
        """Lend `thing` for as long as `holder` lives."""
        ended = weakref.ref(holder, self._ended.append)
        # The number of a weak reference: its hash would be its holder's, and arrays have none.
        self._lent[id(ended)] = (ended, thing)

    def fetch(self) -> Iterator[Thing]:
        """Yield each thing whose holder is gone, once."""
        while self._ended:
            yield self._lent.pop(id(self._ended.popleft()))[1]
