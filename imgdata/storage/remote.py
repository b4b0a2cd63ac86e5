"""The URL of a folder in an object store -> its objects: facts, bytes at offsets, lists; objects written and removed.

Whoever reads waits for seconds, never for ever: a request ends when no byte has come for a while, is made again a few
times after errors that pass, with growing pauses, and then one error says where, what is wrong and what to do.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from imgdata.errors import ImgdataError, OptionError, OutputError, ShardError
from imgdata.storage.atomic import pwrite
from imgdata.storage.local_paths import UrlPath, url_scheme
from imgdata.storage.remote_client import Client, PutMode, RemoteFacts, RemoteSettings
from imgdata.storage.remote_errors import credentials_of, meaning, reason_of
from imgdata.storage.remote_obstore import SCHEMES, ObstoreClient
from imgdata.storage.remote_threads import GivenUpError, in_parallel, is_stopped

WEB = frozenset(("http", "https"))
"""Schemes of plain web servers, which read and write files by name, and don't list them."""

_WHOLE_TRIES = 2
"""Tries of an upload in parts."""
T = TypeVar("T")


SETTINGS = RemoteSettings()
"""Those of a store that gets none of its own."""


class RemoteMissingError(ShardError):
    """There is no object of that name."""


class RemoteConflictError(OutputError):
    """An object exists already, or is another one than the condition of a write says."""


def is_url(text: object) -> bool:
    """Return whether `text` is a URL such as `s3://bucket/folder`, not a path; also `s3:/...`, as `Path` makes it."""
    return isinstance(text, str | os.PathLike) and url_scheme(text) is not None


class RemoteStore:
    """The objects below one URL. Picklable, safe in threads and after a fork: each process connects by itself."""

    def __init__(
        self,
        url: str,
        *,
        endpoint: str | None = None,
        settings: RemoteSettings | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Name the store; nothing is connected yet.

        `endpoint` is the address of a server that speaks S3's language, by default `$AWS_ENDPOINT_URL`.
        """
        if not is_url(url):
            raise OptionError(f"url must be one such as s3://bucket/folder, got {url!r}")
        self.url = str(UrlPath(url))
        self.endpoint = endpoint
        self.settings = settings or SETTINGS
        self._sleep = sleep
        self._client: tuple[int, Client] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_lock": None, "_sleep": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _sleep=time.sleep)

    def __repr__(self) -> str:
        return f"RemoteStore({self.url!r})"

    def __eq__(self, other: object) -> bool:
        """Return whether both are one place, read in one way: then they can share a connection."""
        if not isinstance(other, RemoteStore):
            return NotImplemented
        return (self.url, self.endpoint, self.settings) == (other.url, other.endpoint, other.settings)

    def __hash__(self) -> int:
        return hash((self.url, self.endpoint))

    @property
    def scheme(self) -> str:
        """Scheme of the URL, such as `s3`."""
        return self.url.partition("://")[0].lower()

    def place(self, name: str) -> str:
        """Return the URL of an object, for messages."""
        return f"{self.url}/{name}" if name else self.url

    def head(self, name: str) -> RemoteFacts:
        """Return the facts of an object. Raises `RemoteMissingError`, `ShardError`."""
        found = self._tried(name, lambda: self._connected().head(name))
        return RemoteFacts(name, found.size, found.etag)

    def read(self, name: str, offset: int = 0, size: int | None = None, *, etag: str | None = None) -> bytes:
        """Return `size` bytes from `offset` on, or all; fewer where the object ends before.

        With `etag`, raises `ShardError` for an object that has another one. Raises `RemoteMissingError`, `ShardError`.
        """
        return self.fetch(name, offset, size, etag=etag)[0]

    def fetch(
        self, name: str, offset: int = 0, size: int | None = None, *, etag: str | None = None
    ) -> tuple[bytes, RemoteFacts]:
        """Return what `read` returns, and the facts of the object; all parts are of one version of it."""
        if size is not None and size <= 0:
            return b"", self.head(name)
        part = self.settings.part_bytes
        first, facts = self._part(name, offset, part if size is None else min(size, part), etag)
        end = facts.size if size is None else min(offset + size, facts.size)
        starts = range(offset + len(first), end, part)
        if not starts:
            return first, facts
        rest = [b""] * len(starts)

        def read_part(i: int) -> None:
            rest[i] = self._part(name, starts[i], min(part, end - starts[i]), facts.etag)[0]

        self.in_parallel(read_part, len(starts))
        return b"".join([first, *rest]), facts

    def copy_to(self, file: int, name: str, *, etag: str | None = None) -> RemoteFacts:
        """Write a whole object into the empty file behind the descriptor `file`, part by part; return its facts.

        After an error the file holds anything. Raises what `read` raises, and `OSError` where it can't be written.
        """
        part = self.settings.part_bytes
        first, facts = self._part(name, 0, part, etag)
        os.ftruncate(file, facts.size)
        pwrite(file, first, 0)
        starts = range(len(first), facts.size, part)

        def copy_part(i: int) -> None:
            pwrite(file, self._part(name, starts[i], min(part, facts.size - starts[i]), facts.etag)[0], starts[i])

        self.in_parallel(copy_part, len(starts))
        return facts

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], *, etag: str | None = None) -> list[bytes]:
        """Return the bytes of each `(offset, size)`; those that lie close together come by one request.

        Raises what `read` raises.
        """
        wholes = joined_ranges(ranges, gap=self.settings.gap_bytes, most=self.settings.part_bytes)
        found = [b""] * len(ranges)

        def read_whole(i: int) -> None:
            start, end, members = wholes[i]
            data = self.read(name, start, end - start, etag=etag)
            for member in members:
                offset, size = ranges[member]
                found[member] = data[offset - start : offset - start + size]

        self.in_parallel(read_whole, len(wholes))
        return found

    def list(self, prefix: str = "") -> list[RemoteFacts]:
        """Return the objects whose names begin with `prefix`, a folder or nothing, sorted by name.

        Raises `ShardError`, also for web servers, which can't list.
        """
        if self.scheme in WEB:
            raise ShardError(f"{self.url}: a web server does not list its files; give an s3://, gs:// or az:// URL")
        found = self._tried(prefix, lambda: list(self._connected().list(prefix)))
        return sorted(found, key=lambda one: one.name)

    def put(
        self, name: str, data: bytes | Path, *, only_if_absent: bool = False, if_match: str | None = None
    ) -> RemoteFacts:
        """Write an object, whole or not at all: from memory, or a file.

        What is longer than `put_bytes` goes up in parts, which are removed where the upload fails; with a condition it
        goes at once. Raises `RemoteConflictError` where `only_if_absent` or `if_match` (an ETag) forbids it, and
        `OutputError`.
        """
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        mode: PutMode = "create" if only_if_absent else if_match or "overwrite"
        in_parts = self.settings.put_bytes if mode == "overwrite" and size > self.settings.put_bytes else None
        tries = 0

        def put_once() -> str:
            nonlocal tries
            tries += 1
            return self._connected().put(name, data, mode, in_parts)

        try:
            # Each part has its tries, which are over when the upload as a whole has failed.
            etag = self._tried(name, put_once, writing=True, tries=None if in_parts is None else _WHOLE_TRIES)
        except RemoteConflictError:
            # The first try may have been done, and its answer lost.
            if tries == 1 or not self._is_there(name, data, size):
                raise
            etag = ""
        return RemoteFacts(name, size, etag or self.head(name).etag)

    def copy(self, name: str, to: str) -> RemoteFacts:
        """Give a copy of an object the name `to`, whole or not at all, without its bytes coming here.

        Raises `RemoteMissingError`, `OutputError`.
        """
        self._tried(name, lambda: self._connected().copy(name, to), writing=True)
        return self.head(to)

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error. Raises `OutputError`."""
        try:
            self._tried(name, lambda: self._connected().delete(name), writing=True)
        except RemoteMissingError:
            return

    def in_parallel(
        self,
        work: Callable[[int], None],
        count: int,
        *,
        given_up: Callable[[], bool] | None = None,
        threads: int | None = None,
    ) -> None:
        """Call `work` with 0 to `count` - 1, by as many threads as there may be requests; raise its first error.

        Where `given_up` says so, or the program ends, this stops waiting and raises `ShardError`.
        """
        if count <= 1 and given_up is None:
            for number in range(count):
                work(number)
            return
        try:
            in_parallel(work, count, threads=threads or self.settings.requests, given_up=given_up or (lambda: False))
        except GivenUpError:
            raise ShardError(f"{self.url}: reading was given up") from None

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), self._connect())
            return self._client[1]

    def _connect(self) -> Client:
        if self.scheme in SCHEMES:
            return ObstoreClient(self.url, self.endpoint, self.settings)
        from imgdata.storage.remote_fsspec import FsspecClient

        return FsspecClient(self.url, self.endpoint)

    def _part(self, name: str, start: int, size: int, etag: str | None) -> tuple[bytes, RemoteFacts]:
        def get() -> tuple[bytes, RemoteFacts]:
            data, facts = self._connected().get(name, start, start + size, etag)
            if etag and facts.etag != etag:
                raise self._changed(name)
            if len(data) != max(0, min(size, facts.size - start)):
                raise ConnectionError(f"{len(data)} bytes came of {size}")
            return data, facts

        def get_or_nothing() -> tuple[bytes, RemoteFacts]:
            try:
                return get()
            except Exception as error:
                if isinstance(error, ImgdataError) or meaning(error) != "beyond":
                    raise
                facts = self._connected().head(name)
                if facts.size > start:
                    raise
                return b"", facts

        data, facts = self._tried(name, get_or_nothing)
        return data, RemoteFacts(name, facts.size, facts.etag)

    def _tried(self, name: str, request: Callable[[], T], *, writing: bool = False, tries: int | None = None) -> T:
        settings, begun = self.settings, time.monotonic()
        tries = min(settings.tries, tries or settings.tries)
        for attempt in range(1, tries + 1):
            try:
                return request()
            except ImgdataError:
                raise
            except Exception as error:
                means = meaning(error)
                if means != "again":
                    raise self._error(name, error, means, writing=writing) from error
                if attempt == tries or is_stopped():
                    seconds = time.monotonic() - begun
                    raise self._gave_up(name, error, attempt, seconds, writing=writing) from error
            pause = min(settings.backoff_s * 2 ** (attempt - 1), settings.max_backoff_s)
            self._sleep(pause * random.uniform(0.5, 1.0))
        raise AssertionError("tries must be at least 1")

    def _error(self, name: str, error: Exception, means: str, *, writing: bool) -> ImgdataError:
        kind: type[ImgdataError] = OutputError if writing else ShardError
        place, where = self.place(name), f" at {self.endpoint}" if self.endpoint else ""
        credentials = credentials_of(self.scheme)
        if means == "missing":
            return RemoteMissingError(f"{place}: no such object{where}; check the URL and the endpoint")
        if means == "denied":
            verb = "written" if writing else "read"
            return kind(f"{place}: may not be {verb}{where} ({reason_of(error)}); {credentials}")
        if means == "no credentials":
            return kind(f"{place}: no credentials found for {self.scheme}://; {credentials}")
        if writing and means in ("conflict", "changed"):
            return RemoteConflictError(f"{place}: there already, or changed meanwhile; choose another place")
        if means == "changed":
            return self._changed(name)
        return kind(f"{place}: the request was refused{where} ({reason_of(error)})")

    def _gave_up(self, name: str, error: Exception, tries: int, seconds: float, *, writing: bool) -> ImgdataError:
        kind: type[ImgdataError] = OutputError if writing else ShardError
        verb = "written" if writing else "read"
        times = "1 try" if tries == 1 else f"{tries} tries"
        return kind(
            f"{self.place(name)}: can't be {verb}, {times} in {seconds:.0f} s "
            f"({reason_of(error)}); check the network and the server, then run the same command again"
        )

    def _changed(self, name: str) -> ShardError:
        return ShardError(
            f"{self.place(name)}: changed while it was read (another ETag); open the dataset again, and let nothing "
            "write to it meanwhile"
        )

    def _is_there(self, name: str, data: bytes | Path, size: int) -> bool:
        """Return whether an object has these bytes."""
        try:
            if self.head(name).size != size:
                return False
            return self.read(name) == (data if isinstance(data, bytes) else data.read_bytes())
        except ImgdataError:
            return False


def joined_ranges(ranges: Sequence[tuple[int, int]], *, gap: int, most: int) -> list[tuple[int, int, list[int]]]:
    """Return ranges `(start, end, members)` that cover each `(offset, size)`; `members` are numbers in `ranges`.

    Neighbours at most `gap` bytes apart are joined as long as the whole has at most `most` bytes.
    """
    joined: list[tuple[int, int, list[int]]] = []
    for number in sorted(range(len(ranges)), key=lambda number: ranges[number]):
        offset, size = ranges[number]
        if joined:
            start, end, members = joined[-1]
            if offset - end <= gap and max(end, offset + size) - start <= most:
                joined[-1] = (start, max(end, offset + size), [*members, number])
                continue
        joined.append((offset, offset + size, [number]))
    return joined
