"""What the system says of a file -> one number that differs when the file was written to or replaced."""

import functools
import os
import struct

import numpy as np
import xxhash
from numpy.typing import NDArray

_STEADY_INODES = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "bcachefs"))
"""File systems on which a file keeps its inode number; network and user-space file systems may change it."""


def file_state(info: os.stat_result) -> int:
    """Return a hash of size, modification time and inode, as far as the inode is steady; never 0, below 2^63."""
    return state_of(struct.pack("<qqQ", info.st_size, info.st_mtime_ns, steady_inode(info)))


def both_states(info: os.stat_result) -> tuple[int, int]:
    """Return `file_state`, and the state without the inode, which is the same on all machines that read the file."""
    return file_state(info), state_of(struct.pack("<qqQ", info.st_size, info.st_mtime_ns, 0))


def steady_inodes(inode_N: NDArray[np.int64], device_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `steady_inode` of each file."""
    return np.where(np.isin(device_N.view(np.uint64), list(steady_devices())), inode_N, 0)


def states_of(
    size_N: NDArray[np.int64],
    mtime_N: NDArray[np.int64],
    inode_N: NDArray[np.int64] | int,
) -> list[int]:
    """Return `file_state` of each file, by its steady inode."""
    facts = np.stack(np.broadcast_arrays(size_N, mtime_N, inode_N), axis=1).astype("<i8").tobytes()
    return [state_of(facts[at : at + 24]) for at in range(0, len(facts), 24)]


def state_of(facts: bytes) -> int:
    """Return `file_state` of size, modification time in nanoseconds and steady inode: 8 bytes each, lowest first."""
    return xxhash.xxh3_64_intdigest(facts) >> 1 | 1


def steady_inode(info: os.stat_result) -> int:
    """Return the file's inode number; 0 where the file system may change it."""
    return info.st_ino if info.st_dev in steady_devices() else 0


@functools.cache
def steady_devices() -> frozenset[int]:
    """Return the devices of the mounted file systems in `_STEADY_INODES`; none where the system does not say."""
    devices = set()
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                before, _, behind = line.partition(" - ")
                if behind.split(" ", 1)[0] in _STEADY_INODES:
                    major, _, minor = before.split(" ")[2].partition(":")
                    devices.add(os.makedev(int(major), int(minor)))
    except (OSError, ValueError, IndexError):
        return frozenset()
    return frozenset(devices)
