"""Options -> the one backend of a loader in this process, and what brings its batches to the device."""

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from imgdata.backends.protocol import Backend, BackendName, BackendSetup
from imgdata.backends.registry import choose
from imgdata.backends.workers import closed
from imgdata.loader.options import LoaderOptions, Opened
from imgdata.recipes.ops import Cutout, RandomErasing

if TYPE_CHECKING:
    import torch

    from imgdata.loader.to_device import ToDevice


class _Own:
    """What belongs to one process."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self.device: ToDevice | None = None
        # Reentrant: a handler of signals may close the loader anywhere.
        self.lock = threading.RLock()


class Engine:
    """Makes the backend when it is first needed, and another one after a fork. Pickles without it. Safe in threads."""

    def __init__(self, opened: Opened, options: LoaderOptions) -> None:
        self._options = options
        self._on_gpu = options.device.startswith("cuda")
        setup = BackendSetup(
            split=opened.split,
            recipe=options.recipe,
            seed=options.seed,
            device=options.device,
            batch_size=options.batch_size,
            dtype=options.dtype,
            channels_last=options.channels_last,
            pinned=self._on_gpu,
            threads=options.threads,
            # Those in work while one more is waited for, and the one that the caller still has. A GPU may be behind.
            buffers=options.prefetch + 2 + self._on_gpu,
            max_pixels=opened.max_pixels,
            exact=options.exact,
            dali_options=options.dali_options,
        )
        self._choice = choose(options.backend, setup)
        # A quarter of the bytes goes over, and a GPU has time to spare. What comes after Normalize needs its result.
        self._finishes_there = (
            self._on_gpu
            and self._choice.name == "cpu"
            and options.dtype != "uint8"
            and not options.mixes
            and options.recipe.find(RandomErasing) is None
            and options.recipe.find(Cutout) is None
        )
        self.setup = setup
        if self._finishes_there:
            self.setup = replace(setup, dtype="uint8", channels_last=True)
        elif options.dtype == "bfloat16":
            # NumPy and DALI have no such numbers: made last, of float32.
            self.setup = replace(setup, dtype="float32")
        self._own_of: dict[int, _Own] = {}
        self._closed = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_own_of": {}}

    @property
    def backend_name(self) -> BackendName:
        """The backend's name."""
        return self._choice.name

    @property
    def description(self) -> str:
        """What makes the batches, and why."""
        return self._choice.description

    def memory(self, epoch: int) -> int:
        """Bytes that the batches of `epoch` take together, where the backend makes them."""
        return self._choice.memory(self.setup, epoch)

    def check_open(self) -> None:
        """Raises `OptionError` after `close`."""
        if self._closed:
            raise closed()

    def backend(self) -> Backend:
        """The backend of this process. Raises `OptionError` after `close`."""
        own = self._own()
        with own.lock:
            self.check_open()
            if own.backend is None:
                own.backend = self._choice.make(self.setup)
            return own.backend

    def deliver(self, images: "torch.Tensor", labels: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """A batch where the backend made it -> on the loader's device, in the loader's dtype."""
        images, labels = self._moved(images, labels)
        if self._options.dtype == "bfloat16":
            import torch

            images = images.to(torch.bfloat16)
        return images, labels

    def _moved(self, images: "torch.Tensor", labels: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        if not self._on_gpu:
            # Waits for the copy: the memory that it is made of is soon filled anew.
            return images.to(self._options.device), labels.to(self._options.device)
        if self._choice.name != "cpu":
            import torch

            # The images were made there. What is pinned takes memory of the current device.
            with torch.cuda.device(images.device):
                return images, labels.pin_memory().to(images.device, non_blocking=True)
        own = self._own()
        with own.lock:
            if own.device is None:
                from imgdata.loader.to_device import ToDevice

                own.device = ToDevice(
                    self._options.device,
                    recipe=self._options.recipe if self._finishes_there else None,
                    dtype=self._options.dtype,
                    channels_last=self._options.channels_last,
                )
            return own.device.move(images, labels)

    def close(self) -> None:
        """Stop the threads of this process, for good."""
        own = self._own()
        with own.lock:
            self._closed = True
            backend, own.backend, own.device = own.backend, None, None
        if backend is not None:
            backend.close()

    def _own(self) -> _Own:
        """Threads, and the holder of a lock, stay behind in a fork: a child begins anew."""
        pid = os.getpid()
        for other in list(self._own_of):
            if other != pid:
                self._own_of.pop(other, None)
        # One step, so that all threads get the same.
        return self._own_of.setdefault(pid, _Own())
