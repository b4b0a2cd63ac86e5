"""Options -> the one backend of a loader in this process, and what brings its batches to the device."""

import os
from typing import TYPE_CHECKING

from imgdata.augment.ops import Cutout, RandomErasing
from imgdata.backends import cpu
from imgdata.backends.cpu import CpuBackend
from imgdata.backends.cpu_batch import closed
from imgdata.backends.work import Backend, Setup
from imgdata.loading.options import LoaderOptions, Opened

if TYPE_CHECKING:
    import torch

    from imgdata.backends.to_device import ToDevice


class Engine:
    """Makes the backend when it is first needed, and another one after a fork. Pickles without it."""

    def __init__(self, opened: Opened, options: LoaderOptions) -> None:
        self._options = options
        self._on_gpu = options.device != "cpu"
        # A quarter of the bytes goes over, and a GPU has time to spare. What comes after Normalize needs its result.
        self._finishes_there = (
            self._on_gpu
            and options.dtype != "uint8"
            and not options.mixes
            and options.recipe.find(RandomErasing) is None
            and options.recipe.find(Cutout) is None
        )
        self.setup = Setup(
            split=opened.split,
            recipe=options.recipe,
            seed=options.seed,
            batch_size=options.batch_size,
            dtype="uint8" if self._finishes_there else options.dtype,
            channels_last=options.channels_last or self._finishes_there,
            pinned=self._on_gpu,
            threads=options.threads,
            # Those in work while one more is waited for, and the one that the caller still has. A GPU may be behind.
            buffers=options.prefetch + 2 + self._on_gpu,
            max_pixels=opened.max_pixels,
        )
        self._backend: Backend | None = None
        self._device: ToDevice | None = None
        self._pid = os.getpid()
        self._closed = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_backend": None, "_device": None}

    @property
    def description(self) -> str:
        """What makes the batches, and why."""
        text = cpu.describe(self.setup)
        return f"{text}, then {self._options.device}" if self._on_gpu else text

    def memory(self, epoch: int) -> int:
        """Bytes of the host's memory that the batches of `epoch` take together."""
        height, width = self.setup.recipe.output_size(epoch)
        value = {"uint8": 1, "float16": 2, "float32": 4}[self.setup.dtype]
        return self.setup.buffers * self.setup.batch_size * 3 * height * width * value

    def check_open(self) -> None:
        """Raises `OptionError` after `close`."""
        if self._closed:
            raise closed()

    def backend(self) -> Backend:
        """The backend of this process. Raises `OptionError` after `close`."""
        self.check_open()
        if self._pid != os.getpid():
            # Threads stay behind in a fork.
            self._backend = self._device = None
            self._pid = os.getpid()
        if self._backend is None:
            self._backend = CpuBackend(self.setup)
        return self._backend

    def deliver(self, images: "torch.Tensor", labels: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """A batch in the host's memory -> on the loader's device."""
        if not self._on_gpu:
            return images, labels
        if self._device is None:
            from imgdata.backends.to_device import ToDevice

            self._device = ToDevice(
                self._options.device,
                recipe=self._options.recipe if self._finishes_there else None,
                dtype=self._options.dtype,
                channels_last=self._options.channels_last,
            )
        return self._device.move(images, labels)

    def close(self) -> None:
        """Stop the threads of this process, for good."""
        self._closed = True
        backend, self._backend, self._device = self._backend, None, None
        if backend is not None and self._pid == os.getpid():
            backend.close()
