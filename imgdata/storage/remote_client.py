"""One request to an object store: what goes in, what comes out. `remote` tries again; libraries have a module each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How long one request may take."""

    connect_s: float
    stall_s: float
    """Longest wait for the next byte."""
    request_s: float
    """Longest time of a request, however slowly bytes come."""
    tries: int
    """Tries of a part of an upload, which the library makes itself."""
    backoff_s: float
    """First pause between those, in seconds."""
