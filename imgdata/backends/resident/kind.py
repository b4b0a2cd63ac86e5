"""What a loader needs -> whether its pictures, decoded once, can stay in memory, and where."""

from imgdata.backends.protocol import (
    Backend,
    BackendKind,
    BackendSetup,
    batch_bytes,
    refuses_functions,
    threads_text,
)
from imgdata.backends.resident import pixel_cache
from imgdata.backends.resident.window import BUDGET, Kept, kept, num_bytes, num_threads


class ResidentKind(BackendKind):
    """Batches out of pixels that were decoded once and stay in memory, on the loader's device."""

    name = "resident"
    makes_on_device = True
    decodes_once = True

    def refuses(self, setup: BackendSetup) -> str | None:
        """Return why no window of the pictures can be kept, or why pixels would not be exact; None if they can."""
        if setup.options.exact:
            return f"exact needs the backend cpu, got {self.name!r}: others decode in other ways"
        if (refused := _refuses_channels(setup, self.name)) is not None:
            return refused
        if setup.options.device != "cpu" and (reason := refuses_functions(setup, self.name)) is not None:
            return reason
        window = kept(setup)
        return window if isinstance(window, str) else None

    def prefers(self, setup: BackendSetup) -> bool:
        """Return whether all that would be kept is at most `BUDGET` bytes."""
        if setup.options.exact:
            return False
        window = kept(setup)
        return isinstance(window, Kept) and num_bytes(setup, window) <= BUDGET

    def describe(self, setup: BackendSetup) -> str:
        """Return what is kept, where, and what makes batches of it, in one line."""
        window = kept(setup)
        if isinstance(window, str):
            return window
        device = setup.options.device
        place = "host memory" if device == "cpu" else f"memory of {device}"
        means = f"NumPy, {threads_text(num_threads(setup))}" if device == "cpu" else "PyTorch"
        return (
            f"resident: {len(setup.split)} pictures of {window.width} x {window.height} decoded once, "
            f"{num_bytes(setup, window) / 1e6:.1f} MB in {place}, batches by {means}; cached in "
            f"{pixel_cache.resident_folder()}"
        )

    def memory(self, setup: BackendSetup, epoch: int) -> int:
        """Return the bytes of the batches of `epoch`, beside the kept pixels."""
        return batch_bytes(setup, epoch)

    def make(self, setup: BackendSetup) -> Backend:
        """Return a new backend. Raises `OptionError` where no window can be kept."""
        from imgdata.backends.resident.backend import ResidentBackend

        return ResidentBackend(setup)


def _refuses_channels(setup: BackendSetup, name: str) -> str | None:
    """Return why pixels of 8 bits, or operators on a device, are not those for so many channels; None if they are."""
    options = setup.options
    if options.dtype == "uint16":
        return f"backend {name!r} keeps 8 bits of each value, got dtype uint16; use backend='cpu'"
    if options.deep and any(mode[:1] in ("I", "F") or "16" in mode for mode in setup.split.index.words("mode")):
        return (
            f"backend {name!r} keeps 8 bits of each value, got pictures of 16 bits and channels=1; use "
            "dtype='uint8' or backend='cpu'"
        )
    if options.channels != 3 and options.device != "cpu" and options.recipe.pixel_ops:
        op = type(options.recipe.pixel_ops[0]).__name__
        return (
            f"backend {name!r} has no {op} of {options.channels} channels on {options.device}; use backend='cpu', or "
            "leave it out"
        )
    return None
