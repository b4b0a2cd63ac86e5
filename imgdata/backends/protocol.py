"""What a loader asks of a backend and gets back, and what a kind of backend says of itself before it is made."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from imgdata.augment.mix import MixParams
from imgdata.augment.params import BatchParams
from imgdata.backends.options import LoaderOptions
from imgdata.dataset.split import Split
from imgdata.errors import ImageError
from imgdata.recipes.functions import Apply

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BackendSetup:
    """What stays the same for all batches of a loader."""

    split: Split
    options: LoaderOptions
    """The loader's settings. `dtype` and `channels_last` are those that the backend has to make: where the loader
    finishes batches on the device, they are others than the user's."""
    pinned: bool = False
    """Whether batches lie in memory that a GPU can copy in the background."""
    buffers: int
    """Batches that exist at a time: those in work, the one handed out, the one before it."""
    max_pixels: int
    """Pixels of the largest picture that is decoded."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BatchRequest:
    """One rank's part of a global batch, before a byte is read."""

    epoch: int
    params: BatchParams
    """Parameters of N samples; `params.position_N` differs from `position_N` where a view draws samples repeatedly."""
    position_N: NDArray[np.int64]
    """Positions in the split."""
    skip_N: NDArray[np.bool_]
    """Rows that are known to be bad: they are not read, and get what black pixels become (`postprocess.black`)."""
    mix: MixParams


class PendingBatch(Protocol):
    """A batch that is being made."""

    def wait(self) -> Mapping[int, ImageError]:
        """Wait until all rows are done, and return the rows that failed, which are black, with the reason.

        Raises `ShardError`, also for a shard that can't be opened, and `OptionError` when the backend was closed.
        """
        ...

    def redo(self, rows: NDArray[np.int64], work: BatchRequest) -> Mapping[int, ImageError]:
        """Put the samples of `work`, one for each of `rows`, into these rows; return those that failed again.

        `work.mix` is ignored. Raises as `wait` does.
        """
        ...

    def images(self) -> "torch.Tensor":
        """Return the pixels `(N, C, H, W)`, mixed where the recipe mixes; call it after `wait` and every `redo`."""
        ...

    def cancel(self) -> None:
        """Stop as soon as possible and release the memory. A `wait` in another thread ends with `OptionError`."""
        ...


class Backend(Protocol):
    """Executes batches, several at a time. Nothing runs before the first `start`."""

    def start(self, work: BatchRequest) -> PendingBatch:
        """Begin a batch, and return at once. Raises `OptionError` after `close`."""
        ...

    def close(self) -> None:
        """Stop all threads; may be called twice."""
        ...


class BackendKind(ABC):
    """A kind of backend: its name, what it can do, and how it is made.

    A kind imports nothing heavy; the backend's own modules are imported by `make`. To add one, write a folder with a
    `kind` module and put the kind into `imgdata.backends.registry.KINDS`.
    """

    name: ClassVar[str]
    """What users write: `Loader(backend=name)`."""
    makes_on_device: ClassVar[bool]
    """Whether images are made on the loader's device; otherwise the loader copies them there from host memory."""
    is_reference: ClassVar[bool] = False
    """Whether it reads and decodes on the processor for every batch, so that the doctor's stages describe it."""
    decodes_once: ClassVar[bool] = False
    """Whether pictures are decoded before the first batch, and not read again."""
    shares_views: ClassVar[bool] = True
    """Whether several views of a picture share work, so that `auto` may take it for them."""
    benefit: ClassVar[str] = ""
    """Why it may be faster than the reference, for advice that was measured."""

    def check(self, options: LoaderOptions) -> None:
        """Raise `OptionError` for settings of this kind that don't exist or have no meaning, whatever is chosen."""
        return

    def missing(self, device: str) -> str | None:
        """Return what this machine lacks to use it on `device`, in one line with the way out; None if nothing."""
        return None

    @abstractmethod
    def refuses(self, setup: BackendSetup) -> str | None:
        """Return why it can't be used for `setup`, in one line with the way out; None if it can."""

    @abstractmethod
    def prefers(self, setup: BackendSetup) -> bool:
        """Return whether `auto` should take it, unless it refuses."""

    @abstractmethod
    def describe(self, setup: BackendSetup) -> str:
        """Return what does the work, and how, in one line."""

    @abstractmethod
    def memory(self, setup: BackendSetup, epoch: int) -> int:
        """Return the bytes that the batches of `epoch` take at most where they are made.

        Memory that the backend keeps for itself, and batches that the caller keeps, come on top.
        """

    @abstractmethod
    def make(self, setup: BackendSetup) -> Backend:
        """Return a new backend. Raises `OptionError` where `refuses` has a reason."""

    def make_together(self, setups: Sequence[BackendSetup]) -> tuple[Backend, ...]:
        """Return a new backend for each view of the same pictures."""
        return tuple(map(self.make, setups))

    def start_together(self, backends: Sequence[Backend], works: Sequence[BatchRequest]) -> tuple[PendingBatch, ...]:
        """Begin one batch of the same samples for each view, by the backends of `make_together`."""
        return tuple(backend.start(work) for backend, work in zip(backends, works, strict=True))

    def variants(self, options: LoaderOptions) -> tuple[LoaderOptions, ...]:
        """Return settings of its own that are worth trying when a loader is tuned."""
        return ()


def refuses_channels(setup: BackendSetup, name: str) -> str | None:
    """Return why a backend of three channels can't make so many; None for three."""
    channels = setup.options.channels
    return None if channels == 3 else f"backend {name!r} makes 3 channels, got channels={channels}; use backend='cpu'"


def refuses_functions(setup: BackendSetup, name: str) -> str | None:
    """Return why a backend that makes images on a device can't call a recipe's functions; None if there are none."""
    for op in setup.options.recipe.functions:
        if isinstance(op, Apply):
            return f"backend {name!r} can't call {op!r} for each picture, which lies on the device; use backend='cpu'"
    return None


def batch_bytes(setup: BackendSetup, epoch: int, *, apart: bool = False) -> int:
    """Return the bytes that the batches of `epoch` take together, at most, unless the caller keeps more of them.

    `apart`: before a batch is finished its pixels have a place of their own, in bytes.
    """
    options = setup.options
    height, width = options.recipe.output_size(epoch)
    value = {"uint8": 1, "uint16": 2, "float16": 2, "bfloat16": 2, "float32": 4}[options.dtype] + apart
    return setup.buffers * options.batch_size * options.channels * height * width * value


def threads_text(count: int) -> str:
    """Return the number of threads for people."""
    return f"{count} thread{'s' if count > 1 else ''}"
