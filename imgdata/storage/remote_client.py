"""One request to an object store: what goes in, what comes out. `remote` tries again; libraries have a module each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteSettings:
    """How a store is read and written."""

    part_bytes: int = 8 * 2**20
    """Longer objects are read in parts of so many bytes."""
    put_bytes: int = 16 * 2**20
    """Longer objects are uploaded in parts of so many bytes."""
    gap_bytes: int = 64 * 2**10
    """Ranges that are no further apart are read by one request: that takes less time than another request."""
    requests: int = 16
    """Requests at a time, for one call."""
    small_requests: int = 64
    """Requests at a time for the images of a batch, which are few bytes each."""
    connect_s: float = 10.0
    """Longest wait for a connection, in seconds."""
    stall_s: float = 20.0
    """Longest wait for the next byte, in seconds."""
    request_s: float = 300.0
    """Longest time of one request, however slowly its bytes come, in seconds."""
    tries: int = 6
    """Tries of a request before it is an error."""
    backoff_s: float = 0.2
    """First pause before another try, in seconds; each is twice the one before, less up to half of it by chance."""
    max_backoff_s: float = 10.0
    """Longest pause, in seconds."""


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a store says of one object."""

    name: str
    """Name within the URL of the store."""
    size: int
    """Bytes."""
    etag: str
    """A text that is another one for other bytes: the ETag, else time and size; empty where the store has neither."""


PutMode = str
"""`overwrite`; `create`: only where there is no such object; any other text is the ETag that the object must have."""


class Client(Protocol):
    """Makes single requests, safe in threads. Raises what its library raises; `remote_errors` says what that means."""

    def head(self, path: str) -> RemoteFacts:
        """Return the facts of an object."""
        ...

    def get(self, path: str, start: int, end: int | None, etag: str | None) -> tuple[bytes, RemoteFacts]:
        """Return bytes `start` to `end` (None: all) and the facts of the whole; other ETags may be refused."""
        ...

    def list(self, prefix: str) -> Iterator[RemoteFacts]:
        """Yield the objects whose names begin with `prefix`, which ends at a slash or is empty."""
        ...

    def put(self, path: str, data: bytes | Path, mode: PutMode, part_bytes: int | None) -> str:
        """Write an object, in parts of `part_bytes` where that is given; return its ETag."""
        ...

    def copy(self, path: str, to: str) -> None:
        """Write an object once more under another name, over what has it."""
        ...

    def delete(self, path: str) -> None:
        """Remove an object."""
        ...
