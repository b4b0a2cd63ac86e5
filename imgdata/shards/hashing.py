"""Bytes of a shard -> its hash, of the kind that the options name."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import xxhash

from imgdata.dataset.manifest import HashKind
from imgdata.storage.reading import open_regular

_READ_BYTES = 1 << 20


class Hasher(Protocol):
    """Hash of bytes that come block by block; other threads run while it works on a block."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append `data` to what is hashed."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of all bytes in hexadecimal."""
        ...


class _NoHash:
    """Hasher of the kind `none`."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Pass over `data`."""

    def hexdigest(self) -> str:
        """Return an empty text."""
        return ""


_NEW: Mapping[HashKind, Callable[[], Hasher]] = {
    "sha256": hashlib.sha256,
    "xxh128": xxhash.xxh3_128,
    "none": _NoHash,
}


def new_hash(kind: HashKind) -> Hasher:
    """Return a hash of no bytes. `xxh128` is what `xxh128sum` prints, a sixteenth of the work of `sha256`."""
    return _NEW[kind]()


def file_hash(path: Path, kind: HashKind) -> str:
    """Return the hash of a file's bytes in hexadecimal; empty for the kind `none`. Raises `OSError`."""
    digest = new_hash(kind)
    if kind != "none":
        block = memoryview(bytearray(_READ_BYTES))
        with open(path, "rb", opener=open_regular, buffering=0) as file:
            while size := file.readinto(block):
                digest.update(block[:size])
    return digest.hexdigest()
