"""Files -> blocks of a tar, with the hash of the tar: the compiled part of copying, without Python's lock."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata import native

TAR_BLOCK = 512
_MOST_INT64 = 2**63 - 1
GO_ON, LEFT, FULL, NOT_WRITTEN = range(4)
"""Outcomes of `copy_samples`: all done or time is up; a sample is left to Python; the next one has no room; the tar
can't be written."""
TAR_HASHES = ("none", "xxh128", "sha256")
"""Kinds of `TarHash`, by number."""
PICTURE_KINDS = (
    *(("jpeg", mode) for mode in ("L", "RGB", "CMYK", "YCCK")),
    *(("png", mode) for mode in ("L", "LA", "P", "PA", "RGB", "RGBA")),
    *(("webp", mode) for mode in ("RGB", "RGBA")),
)
"""Format and mode of a picture by the number that `copy_samples` gives."""


class SamplesToCopy(NamedTuple):
    """N samples for `copy_samples`."""

    paths: bytes
    """Paths of the files, a zero behind each."""
    keys: bytes
    """Keys, a zero behind each: ASCII, with `.` and the extension at most 100 bytes."""
    wanted_N6: NDArray[np.int64]
    """Where path and key begin, size, first byte in the file (-1: the file is nothing else), label (-1: none), state
    (`SampleRef.state`; 0: not known)."""
    extension: str
    """Extension of the image's member."""
    steady_devices: NDArray[np.uint64]
    """Devices whose inode numbers count for the state, at most some dozens."""


def makes_tar_hash(kind: str) -> bool:
    """Return whether there is a `TarHash` of this kind: `sha256` where the processor has instructions for it."""
    return native.AVAILABLE and kind in TAR_HASHES and (kind != "sha256" or bool(native._compiled.SHA256_IS_FAST))


class TarHash:
    """The hash of a tar's bytes, which `copy_samples` adds to as it writes them."""

    def __init__(self, kind: str) -> None:
        self.number = TAR_HASHES.index(kind)
        """Position of the kind in `TAR_HASHES`."""
        self.state = np.zeros(native._compiled.TAR_HASH_BYTES // 8, np.uint64)
        """What is known of the bytes so far."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append a multiple of 64 bytes; the GIL is free for the work."""
        native._compiled.tar_hash_update(self.number, self.state, data)

    def hexdigest(self) -> str:
        """Return the hash of all bytes, more than 240, in hexadecimal; empty for the kind `none`."""
        return native._compiled.tar_hash_digest(self.number, self.state).hex()


class Block(NamedTuple):
    """Memory for the next bytes of a tar, and where they go."""

    memory: memoryview
    used: int
    """Bytes of `memory` that are filled."""
    position: int
    """Place of `memory` in the tar."""
    hash: TarHash
    tar: int = -1
    """Descriptor of the tar, to which the block is written when it is full; -1 where the caller writes it."""


class Copied(NamedTuple):
    """How far `copy_samples` came."""

    done: int
    """First sample that is not done."""
    used: int
    """Bytes of the block that are filled."""
    position: int
    """Place of the block in the tar: it moves when the block is written."""
    outcome: int
    """`GO_ON`, `LEFT`, `FULL` or `NOT_WRITTEN`."""
    error: int
    """The `errno` of `NOT_WRITTEN`."""


def copy_samples(
    samples: SamplesToCopy, found_N6: NDArray[np.int64], *, first: int, block: Block, max_pixels: int
) -> Copied:
    """Put the samples from `first` on into `block`; the GIL is free for the whole work.

    Each becomes its `cls` member, where it has a label, and its image, as `imgdata.shards.writer` writes them.
    `found_N6` gets its offset in the tar, xxh64 (bits of a uint64), width, height, number in `PICTURE_KINDS` and
    orientation. A full block is hashed and written where it has a `tar`.

    The outcome is `GO_ON` (after 0.05 s at the latest), `FULL`, `NOT_WRITTEN`, or `LEFT`: the sample does not fit into
    an empty block, can't be read, is not as it was listed, has more than `max_pixels`, or its header is bad or unusual.
    Nothing is known of such a sample then.
    """
    paths, keys, wanted_N6, extension, steady = samples
    memory, used, position, hash, tar = block
    limit = min(max_pixels, _MOST_INT64)
    return Copied(
        *native._compiled.copy_samples(
            *(paths, keys, wanted_N6, found_N6, memory, first, used),
            *(position, tar, hash.number, hash.state, extension, limit, steady),
        )
    )
