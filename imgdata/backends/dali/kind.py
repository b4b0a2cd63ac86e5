"""What a loader needs -> whether DALI can do it, and how it will; without PyTorch, which takes a second to import."""

from dataclasses import replace

from imgdata.backends.dali import available
from imgdata.backends.dali.options import dali_options
from imgdata.backends.dali.pipeline import parent_used_gpu
from imgdata.backends.options import LoaderOptions
from imgdata.backends.pillow import operators
from imgdata.backends.protocol import (
    Backend,
    BackendKind,
    BackendSetup,
    batch_bytes,
    refuses_channels,
    refuses_functions,
    threads_text,
)
from imgdata.errors import OptionError

_LOADS = (0.65, 0.9, 1.0)
"""Shares of the JPEGs for the GPU's decoder engine that are worth trying."""


class DaliKind(BackendKind):
    """Batches on a GPU or the processor, by a pipeline of NVIDIA DALI."""

    name = "dali"
    makes_on_device = True
    # A pipeline of its own makes each view.
    shares_views = False
    benefit = "the GPU decodes; with few cores try dali_options={'hw_decoder_load': 1.0}"

    def check(self, options: LoaderOptions) -> None:
        """Raise `OptionError` for settings of DALI that don't exist or have no meaning."""
        dali_options(options.dali_options)

    def missing(self, device: str) -> str | None:
        """Return why DALI can't work on `device` here, in one line with the way out; None if it can."""
        return available.refusal(device)

    def refuses(self, setup: BackendSetup) -> str | None:
        """Return why DALI can't be used for `setup`, with the way out; None if it can."""
        if setup.options.exact:
            return f"exact needs the backend cpu, got {self.name!r}: others decode in other ways"
        if (reason := refuses_channels(setup, self.name) or refuses_functions(setup, self.name)) is not None:
            return reason
        device = setup.options.device
        formats = set(setup.split.index.words("format")) - {"unknown"}
        if formats and "jpeg" not in formats:
            return f"backend 'dali' must have JPEGs, got {', '.join(sorted(formats))}; use backend='cpu'"
        if device != "cpu" and parent_used_gpu():
            return (
                f"device {device!r} can't be used in a process forked from one that used a GPU; start it by "
                "multiprocessing's 'spawn'"
            )
        return self.missing(device)

    def prefers(self, setup: BackendSetup) -> bool:
        """Return whether the images are wanted on a GPU."""
        return setup.options.on_gpu and not setup.options.exact

    def describe(self, setup: BackendSetup) -> str:
        """Return what does the work, and how, in one line."""
        options = setup.options
        formats = setup.split.index.words("format")
        others = "" if formats == ["jpeg"] else f", Pillow for {', '.join(word for word in formats if word != 'jpeg')}"
        where = "the processor" if options.device == "cpu" else options.device
        return (
            f"dali: NVIDIA DALI {available.load().__version__} on {where}, {threads_text(options.threads)}, depth "
            f"{dali_options(options.dali_options).depth}{others}"
        )

    def memory(self, setup: BackendSetup, epoch: int) -> int:
        """Return the bytes of the batches of `epoch` on the device.

        What is needed while they are made, the decoded parts of `depth` batches, comes on top.
        """
        options = setup.options
        # Operators work in bytes, channels last. A batch on a GPU is a copy.
        is_copy = options.device != "cpu" or options.dtype != "uint8" or not options.channels_last
        if operators.works_on_pixels(options.recipe):
            return batch_bytes(setup, epoch, apart=is_copy)
        return batch_bytes(setup, epoch) * (2 if options.device != "cpu" else 1)

    def make(self, setup: BackendSetup) -> Backend:
        """Return a new backend. Raises `OptionError`, with what to do, where DALI can't be used."""
        reason = self.refuses(setup)
        if reason is not None:
            raise OptionError(reason)
        # Here, since it imports PyTorch.
        from imgdata.backends.dali.backend import DaliBackend

        return DaliBackend(setup)

    def variants(self, options: LoaderOptions) -> tuple[LoaderOptions, ...]:
        """Return the same settings with other shares of the JPEGs for the GPU's decoder engine."""
        if not options.on_gpu:
            return ()
        return tuple(
            replace(options, dali_options={**options.dali_options, "hw_decoder_load": share}) for share in _LOADS
        )
