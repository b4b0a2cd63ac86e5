"""Settings -> the one backend of a loader in this process, and the delivery of its batches to the device."""

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from imgdata.backends.joint.batch import JointMaker, PendingJoint
from imgdata.backends.joint.parts import joint_of
from imgdata.backends.options import LoaderOptions
from imgdata.backends.protocol import Backend, BackendKind, BackendSetup, BatchRequest, PendingBatch
from imgdata.backends.registry import choose
from imgdata.backends.together import PendingViews
from imgdata.backends.workers import closed
from imgdata.loader.opened import Opened
from imgdata.recipes.ops import Cutout, RandomErasing
from imgdata.recipes.several import Views

if TYPE_CHECKING:
    import torch

    from imgdata.loader.to_device import ToDevice


class _Own:
    """The backend and the delivery of one process."""

    def __init__(self) -> None:
        self.backends: tuple[Backend, ...] = ()
        self.joint: JointMaker | None = None
        self.device: ToDevice | None = None
        # Reentrant: a handler of signals may close the loader anywhere.
        self.lock = threading.RLock()


class Engine:
    """Makes the backend when it is first needed, and another one after a fork. Pickles without it. Safe in threads."""

    def __init__(self, opened: Opened, options: LoaderOptions) -> None:
        self._options = options
        setup = BackendSetup(
            split=opened.split,
            options=options,
            pinned=options.on_gpu,
            # Those in work while one more is waited for, and the one that the caller still has. A GPU may be behind.
            buffers=options.prefetch + 2 + options.on_gpu,
            max_pixels=opened.max_pixels,
        )
        self._choice = choose(options.backend, setup)
        # A loader of several views has an engine for each of them; the first one starts the batches of all.
        self._views: tuple[Engine, ...] = ()
        if isinstance(options.recipe, Views):
            self._views = tuple(Engine(opened, replace(one, backend=self.kind.name)) for one in options.of_views)
        # A quarter of the bytes goes over, and a GPU has time to spare. What comes after Normalize needs its result.
        self._finishes_there = (
            options.on_gpu
            and not self.kind.makes_on_device
            and options.dtype not in ("uint8", "uint16")
            and options.channels == 3
            and not options.mixes
            and options.recipe.find(RandomErasing) is None
            and options.recipe.find(Cutout) is None
        )
        if self._finishes_there:
            setup = replace(setup, options=replace(options, dtype="uint8", channels_last=True))
        elif options.dtype == "bfloat16":
            # NumPy and DALI have no such numbers: made last, of float32.
            setup = replace(setup, options=replace(options, dtype="float32"))
        self.setup = setup
        """The setup that the backend gets."""
        self.joint = joint_of(opened.split, options)
        """What moves with the pictures; None where nothing does."""
        self._own_of: dict[int, _Own] = {}
        self._closed = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_own_of": {}}

    @property
    def kind(self) -> BackendKind:
        """The kind of backend that was chosen."""
        return self._choice.kind

    @property
    def description(self) -> str:
        """What makes the batches, and why; one line."""
        return self._choice.description

    def memory(self, epoch: int) -> int:
        """Return the bytes that the batches of `epoch` take together, where the backend makes them."""
        return sum(view.memory(epoch) for view in self._views) or self.kind.memory(self.setup, epoch)

    def check_open(self) -> None:
        """Raise `OptionError` after `close`."""
        if self._closed:
            raise closed()

    def backends(self) -> tuple[Backend, ...]:
        """Return the backend of this process for each view. Raises `OptionError` after `close`."""
        own = self._own()
        with own.lock:
            self.check_open()
            if not own.backends:
                setups = [view.setup for view in self._views]
                own.backends = self.kind.make_together(setups) if setups else (self.kind.make(self.setup),)
            return own.backends

    def start(self, works: Sequence[BatchRequest]) -> PendingBatch | PendingViews | PendingJoint:
        """Begin the batch of a request for each view, and what moves with its pictures."""
        backends = self.backends()
        maker = self._joint_maker()
        joint = None if maker is None else maker.start(works)
        setups = [view.setup for view in self._views]
        pictures: PendingBatch | PendingViews
        if setups:
            pictures = PendingViews(self.kind.start_together(backends, works), setups)
        else:
            pictures = backends[0].start(works[0])
        return pictures if joint is None else PendingJoint(pictures, joint, setups or [self.setup])

    def _joint_maker(self) -> JointMaker | None:
        """Return what makes masks and the like in this process; None where nothing moves with the pictures."""
        if self.joint is None:
            return None
        own = self._own()
        with own.lock:
            self.check_open()
            if own.joint is None:
                own.joint = JointMaker(self.setup, self.joint, keeps=self.kind.decodes_once)
            return own.joint

    def deliver_views(
        self, views: "Sequence[torch.Tensor]", labels: "torch.Tensor"
    ) -> "tuple[tuple[torch.Tensor, ...], torch.Tensor]":
        """Do what `deliver` does, for the images of each view."""
        first, moved = self._views[0].deliver(views[0], labels)
        none = labels[:0]
        others = [view.deliver(images, none)[0] for view, images in zip(self._views[1:], views[1:], strict=True)]
        return (first, *others), moved

    def deliver(self, images: "torch.Tensor", labels: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """Move a batch from where the backend made it to the loader's device, in the loader's dtype."""
        images, labels = self._moved(images, labels)
        if self._options.dtype == "bfloat16":
            import torch

            images = images.to(torch.bfloat16)
        return images, labels

    def moved(self, values: "torch.Tensor") -> "torch.Tensor":
        """Return values of a batch on the loader's device."""
        if not self._options.on_gpu:
            return values.to(self._options.device)
        import torch

        # What is pinned takes memory of the current device.
        with torch.cuda.device(self._options.device):
            return values.pin_memory().to(self._options.device, non_blocking=True)

    def _moved(self, images: "torch.Tensor", labels: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        if not self._options.on_gpu:
            # Waits for the copy: the memory that it is made of is soon filled anew.
            return images.to(self._options.device), labels.to(self._options.device)
        if self.kind.makes_on_device:
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
            backends, own.backends, own.device = own.backends, (), None
            joint, own.joint = own.joint, None
        if joint is not None:
            joint.close()
        for view in self._views:
            view.close()
        for backend in backends:
            backend.close()
        if self.setup.split.cache is not None:
            self.setup.split.cache.close()

    def _own(self) -> _Own:
        """Return what belongs to this process: threads and locks of the parent are of no use in a forked child."""
        pid = os.getpid()
        for other in list(self._own_of):
            if other != pid:
                self._own_of.pop(other, None)
        # One step, so that all threads get the same.
        return self._own_of.setdefault(pid, _Own())
