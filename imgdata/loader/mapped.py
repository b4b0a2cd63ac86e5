"""A loader, a function of its batches -> an iterable for code that expects other batches, or a `DataLoader`."""

import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Protocol, TypeVar

from torch.utils.data import IterableDataset

from imgdata.errors import OptionError
from imgdata.sample import Batch
from imgdata.views.view import View

T_co = TypeVar("T_co", covariant=True)


class BatchSource(Protocol):
    """An `imgdata.Loader`, as far as it is used here."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    @property
    def batch_size(self) -> int:
        """Samples of a batch."""
        ...

    @property
    def dataset(self) -> View:
        """The samples of an epoch."""
        ...

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def sampler(self) -> Any:
        """What has `set_epoch`."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Let the next iterator begin with `epoch`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iterator resume there."""
        ...


class MappedLoader(IterableDataset[T_co]):
    """The result of `Loader.map`: the loader's batches, each as a function makes it.

    Length, epochs and state are the loader's; see `imgdata.Loader`. It is no `DataLoader`, and so is not sharded again.
    """

    def __init__(self, loader: BatchSource, function: Callable[[Batch], T_co]) -> None:
        self._loader, self._function = loader, function

    def __len__(self) -> int:
        """Return batches of a whole epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[T_co]:
        if self._loader.world_size > 1:
            _refuse_another_sharding()
        return map(self._function, self._loader)

    @property
    def batch_size(self) -> int:
        """Samples of a batch of this rank."""
        return self._loader.batch_size

    @property
    def sampler(self) -> Any:
        """See `imgdata.Loader.sampler`."""
        return self._loader.sampler

    @property
    def batch_sampler(self) -> None:
        """See `imgdata.Loader.batch_sampler`."""
        return None

    @property
    def dataset(self) -> View:
        """`len(loader.dataset)` is the number of samples, over all ranks."""
        return self._loader.dataset

    def set_epoch(self, epoch: int) -> None:
        """See `imgdata.Loader.set_epoch`."""
        self._loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `imgdata.Loader.state_dict`."""
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `imgdata.Loader.load_state_dict`."""
        self._loader.load_state_dict(state)


def _refuse_another_sharding() -> None:
    """Raise `OptionError` where Accelerate would share out again, between ranks, what each rank has for itself."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "accelerate.data_loader":
            raise OptionError(
                "a loader of several ranks must not be prepared by Accelerate inside a DataLoader, got one that is: "
                "each rank has its own batches already, and would see a part of them alone; pass loader.map(...) "
                "itself to accelerator.prepare"
            )
        frame = frame.f_back
