"""An object of a store -> a file for libraries that read files: each read is a request for its bytes alone."""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from imgdata.errors import ShardError
from imgdata.storage.remote import RemoteStore
from imgdata.storage.remote_client import RemoteFacts


class RangeFile(io.RawIOBase, ABC):
    """Bytes that `fetch` gets, as a file that can be read at any place."""

    def __init__(self, size: int) -> None:
        """Begin before the first of `size` bytes."""
        super().__init__()
        self._size = size
        self._position = 0

    @abstractmethod
    def fetch(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, of those that there are. Raises `ShardError`."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, counted from the start, from here or from the end; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, or all up to the end; fewer where the object ends before."""
        left = max(0, self._size - self._position)
        size = left if size is None or size < 0 else min(size, left)
        data = self.fetch(self._position, size) if size else b""
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """Return all bytes up to the end."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as there are bytes; return how many."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class RemoteFile(RangeFile):
    """An object as a file. Reads raise `ShardError`, also where the object has changed.

    Bytes that are read are not kept: the library that reads has to ask for all that it needs at once.
    """

    def __init__(
        self, store: RemoteStore, facts: RemoteFacts, failed: Callable[[ShardError], None] = lambda error: None
    ) -> None:
        """Name the object, which must have this ETag still; `failed` gets the error of a read before it is raised."""
        super().__init__(facts.size)
        self._store, self._facts, self._failed = store, facts, failed

    def fetch(self, offset: int, size: int) -> bytes:
        """See `RangeFile`."""
        try:
            return self._store.read(self._facts.name, offset, size, etag=self._facts.etag or None)
        except ShardError as error:
            self._failed(error)
            raise
