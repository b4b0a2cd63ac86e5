"""What a loader needs -> how the CPU backend does it: the compiled extension, Pillow, or both."""

from collections.abc import Sequence

import PIL

from imgdata import native
from imgdata.backends.cpu.native_rows import CHANNELS, needs_windows
from imgdata.backends.pillow import operators
from imgdata.backends.protocol import (
    Backend,
    BackendKind,
    BackendSetup,
    BatchRequest,
    PendingBatch,
    batch_bytes,
    threads_text,
)


class CpuKind(BackendKind):
    """Batches in the host's memory, by the processor's cores. It takes every recipe and every dataset."""

    name = "cpu"
    makes_on_device = False
    is_reference = True

    def refuses(self, setup: BackendSetup) -> str | None:
        """Return None: it can always be used."""
        return None

    def prefers(self, setup: BackendSetup) -> bool:
        """Return True: it is what `auto` falls back on."""
        return True

    def describe(self, setup: BackendSetup) -> str:
        """Return what does the work, and why, in one line."""
        device = setup.options.device
        return _means(setup) + ("" if device == "cpu" else f", then {device}")

    def memory(self, setup: BackendSetup, epoch: int) -> int:
        """Return the bytes of the batches of `epoch` in the host's memory."""
        return batch_bytes(setup, epoch, apart=needs_windows(setup))

    def make(self, setup: BackendSetup) -> Backend:
        """Return a new backend."""
        from imgdata.backends.cpu.backend import CpuBackend

        return CpuBackend(setup)

    def make_together(self, setups: Sequence[BackendSetup]) -> tuple[Backend, ...]:
        """Return a backend for each view, which share files and threads."""
        from imgdata.backends.cpu.backend import CpuBackend

        first = CpuBackend(setups[0])
        return (first, *(CpuBackend(setup, beside=first) for setup in setups[1:]))

    def start_together(self, backends: Sequence[Backend], works: Sequence[BatchRequest]) -> tuple[PendingBatch, ...]:
        """Begin a batch for each view; pictures are read and decoded once by the extension."""
        from imgdata.backends.cpu.backend import CpuBackend, start_together

        return start_together([backend for backend in backends if isinstance(backend, CpuBackend)], works)


def _means(setup: BackendSetup) -> str:
    pillow = f"Pillow{'-SIMD' if '.post' in PIL.__version__ else ''} {PIL.__version__}"
    threads = threads_text(setup.options.threads)
    if setup.options.exact:
        return f"cpu: {pillow}, {threads}; exact pixels were asked for, and the native extension rounds differently"
    if setup.options.channels not in CHANNELS:
        return f"cpu: {pillow}, {threads}; the native extension makes 1 or 3 channels, got {setup.options.channels}"
    if setup.options.dtype == "uint16":
        return f"cpu: {pillow}, {threads}; the native extension makes 8 bits and floats, got uint16"
    if not native.AVAILABLE:
        return (
            f"cpu: {pillow}, {threads}; the native extension was not built: install gcc and the headers of "
            "libjpeg-turbo, and imgdata again"
        )
    formats = setup.split.index.words("format")
    if "jpeg" not in formats:
        return f"cpu: {pillow}, {threads}; the native extension reads JPEG, and the images are {', '.join(formats)}"
    others = "" if formats == ["jpeg"] else f", {pillow} for {', '.join(word for word in formats if word != 'jpeg')}"
    on_pixels = f", {pillow} for operators on pixels" if operators.works_on_pixels(setup.options.recipe) else ""
    return (
        f"cpu: native extension (libjpeg-turbo {native.libjpeg_version()}, {native.SIMD[-1]}), {threads}"
        f"{others}{on_pixels}"
    )
