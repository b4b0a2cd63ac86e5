"""A block that runs out of memory -> one message that says what to do about it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imgdata.errors import TrainingError

_SIGNS = ("out of memory", "DefaultCPUAllocator")
"""In PyTorch's errors: of a GPU, pinned memory or its context, and of the processor's memory."""


@contextmanager
def memory_told(advice: Callable[[], str]) -> Iterator[None]:
    """Raises `TrainingError` with `advice` where memory is out in the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise TrainingError(advice()) from error
