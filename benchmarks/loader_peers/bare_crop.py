"""The bound: libjpeg-turbo alone decodes the boxes that our loader cuts from the same images; nothing is resized."""

import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.loader_peers.ours import recipe
from benchmarks.loader_peers.task import Batches, Task

_SOURCE = Path(__file__).resolve().parent.parent / "bare_crop.c"

Part = Literal["crop", "whole", "huffman"]
PARTS: tuple[Part, ...] = ("crop", "whole", "huffman")


def build(folder: Path) -> ctypes.CDLL:
    """`bare_crop.c`, compiled into `folder` and loaded."""
    library = folder / "bare_crop.so"
    command = ["gcc", "-O2", "-std=c11", "-shared", "-fPIC", "-pthread", str(_SOURCE), "-o", str(library), "-ljpeg"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ImportError(f"{_SOURCE.name} needs gcc and the headers of libjpeg-turbo: {done.stderr[-500:]}")
    return ctypes.CDLL(str(library))


def decode(
    library: ctypes.CDLL,
    address_N: NDArray[np.int64],
    size_N: NDArray[np.int64],
    box_N4: NDArray[np.int64],
    *,
    threads: int,
    part: Part,
) -> None:
    """Decode JPEGs at these places in memory: their boxes, the whole of each, or no further than its coefficients.

    A row of `box_N4` is left, top, width, height in pixels.
    """
    bad = library.bare_crop(
        ctypes.c_void_p(address_N.ctypes.data),
        ctypes.c_void_p(size_N.ctypes.data),
        ctypes.c_void_p(box_N4.ctypes.data),
        len(address_N),
        threads,
        PARTS.index(part),
    )
    assert not bad, f"{bad} images could not be decoded"


def crops(task: Task) -> Batches:
    return _batches(task, "crop")


def whole(task: Task) -> Batches:
    """Decode the same images as a whole."""
    return _batches(task, "whole")


def _batches(task: Task, part: Part) -> Batches:
    import imgdata
    from imgdata.augment.params import params
    from imgdata.order.epoch_order import Order

    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
    split = imgdata.open(task.data / "shards")["train"]
    index = split.index
    order = Order(num_samples=len(split), global_batch=task.batch, drop_last=True)
    shards = {name: np.memmap(split.folder.local(name), np.uint8, "r") for name in index.words("shard")}
    memory_S = np.array([shards[name].ctypes.data for name in index.words("shard")])
    position_BN = [order.batch(0, number)[0] for number in range(len(order))]
    # Before the first batch, which is not counted: what is measured is libjpeg-turbo alone.
    box_BN4 = [
        params(
            recipe(task),
            index.array("width")[position_N],
            index.array("height")[position_N],
            seed=0,
            epoch=0,
            position_N=position_N,
        ).box_N4
        for position_N in position_BN
    ]
    for position_N, box_N4 in zip(position_BN, box_BN4, strict=True):
        address_N = memory_S[index.shard_N[position_N]] + index.array("offset")[position_N]
        size_N = np.ascontiguousarray(index.array("size")[position_N], np.int64)
        decode(library, address_N, size_N, box_N4, threads=task.threads, part=part)
        yield None, position_N
