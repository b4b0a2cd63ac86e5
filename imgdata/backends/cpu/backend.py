"""The CPU backend: positions and parameters -> a batch in memory, by the host's cores.

JPEGs in colour or gray are the compiled extension's, from the file to the finished pixels. All else goes row by row
through Pillow: other formats, what the extension refuses, operators on pixels; everything where it was not built.
"""

import threading
import weakref

import numpy as np
import PIL
from numpy.typing import NDArray

from imgdata import native
from imgdata.backends import postprocess
from imgdata.backends.buffers import Buffers
from imgdata.backends.cpu.batch import CpuBatch
from imgdata.backends.cpu.native_rows import NativeRows
from imgdata.backends.ending import alive, begun, closed
from imgdata.backends.pillow import crop, operators
from imgdata.backends.protocol import Setup, Work
from imgdata.backends.protocol import memory as batch_memory
from imgdata.backends.shard_files import ShardFiles
from imgdata.backends.threads import Threads
from imgdata.recipes.ops import Cutout, RandomErasing


class CpuBackend:
    """Makes batches in threads. Safe in threads."""

    def __init__(self, setup: Setup) -> None:
        """Start the extension's threads, where it was built. Others start when they are first needed."""
        self.setup = setup
        self.buffers = Buffers(keep=setup.buffers, pinned_for=setup.device if setup.pinned else None)
        self.windows = Buffers(keep=setup.buffers)
        self.scale_shift = postprocess.scale_shift(setup.recipe)
        self.black_311 = postprocess.black(setup.recipe, setup.dtype)
        self.operates = operators.works_on_pixels(setup.recipe)
        self.apart = _apart(setup)
        self.erases = bool(setup.recipe.find(RandomErasing) or setup.recipe.find(Cutout))
        self.files = ShardFiles(setup.split)
        self.native = NativeRows(setup) if _uses_native(setup) else None
        self._pools: dict[str, Threads] = {}
        self._batches: list[weakref.ref[CpuBatch]] = []
        self._closed = False
        # Reentrant, since the collector may close a loader that nobody holds anywhere.
        self._lock = threading.RLock()

    def start(self, work: Work) -> CpuBatch:
        """See `Backend`; what is wrong with a shard is heard from `wait`."""
        with self._lock:
            self._check_open()
            batch = CpuBatch(self, work)
            self._batches = begun(self._batches, batch)
        batch.begin(work)
        return batch

    def rows(self) -> Threads:
        """The threads for what Pillow does."""
        return self._pool("rows", self.setup.threads)

    def waiter(self) -> Threads:
        """One thread that waits for the extension where there is something to do to its rows, in their order."""
        return self._pool("waiter", 1)

    def window(self, work: Work, number: int, file: int) -> NDArray[np.uint8]:
        """Sample `number` of `work` up to where it is normalised, uint8 `(H, W, 3)`. Raises `ImageError`."""
        setup, index = self.setup, self.setup.split.index
        position = int(work.position_N[number])
        image = crop.cut_image(
            self.files.read(position, file),
            size=(int(index.width_N[position]), int(index.height_N[position])),
            format=index.words("format")[index.array("format")[position]],
            params=work.params,
            row=number,
            recipe=setup.recipe,
            max_pixels=setup.max_pixels,
        )
        if self.operates:
            image = operators.apply_image(image, work.params, number, setup.recipe)
        return np.asarray(image)

    def close(self) -> None:
        """See `Backend`."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for batch in alive(self._batches):
            batch.cancel()
        for pool in pools:
            pool.close()
        if self.native is not None:
            self.native.close()

    def _pool(self, name: str, count: int) -> Threads:
        with self._lock:
            self._check_open()
            if name not in self._pools:
                self._pools[name] = Threads(count)
            return self._pools[name]

    def _check_open(self) -> None:
        if self._closed:
            raise closed()


def memory(setup: Setup, epoch: int) -> int:
    """Bytes that the batches of `epoch` take together, at most, unless the caller keeps more of them."""
    return batch_memory(setup, epoch, apart=_apart(setup))


def _apart(setup: Setup) -> bool:
    """Whether the extension's pixels need a place of their own, in bytes, for the operators that come after it.

    A batch of bytes in their order is itself the place.
    """
    in_place = setup.dtype == "uint8" and setup.channels_last
    return _uses_native(setup) and operators.works_on_pixels(setup.recipe) and not in_place


def _uses_native(setup: Setup) -> bool:
    return native.AVAILABLE and not setup.exact


def describe(setup: Setup) -> str:
    """What does the work, and why; in one line."""
    pillow = f"Pillow{'-SIMD' if '.post' in PIL.__version__ else ''} {PIL.__version__}"
    threads = f"{setup.threads} thread{'s' if setup.threads > 1 else ''}"
    if setup.exact:
        return f"cpu: {pillow}, {threads}; exact pixels were asked for, and the native extension rounds differently"
    if not native.AVAILABLE:
        return (
            f"cpu: {pillow}, {threads}; the native extension was not built: install gcc and the headers of "
            "libjpeg-turbo, and imgdata again"
        )
    formats = setup.split.index.words("format")
    if "jpeg" not in formats:
        return f"cpu: {pillow}, {threads}; the native extension reads JPEG, and the images are {', '.join(formats)}"
    others = "" if formats == ["jpeg"] else f", {pillow} for {', '.join(word for word in formats if word != 'jpeg')}"
    on_pixels = f", {pillow} for operators on pixels" if operators.works_on_pixels(setup.recipe) else ""
    return (
        f"cpu: native extension (libjpeg-turbo {native.libjpeg_version()}, {native.SIMD[-1]}), {threads}"
        f"{others}{on_pixels}"
    )
