"""The URL of a dataset, the name of a file of it -> bytes by ranges; small files as copies in the cache folder."""

import contextlib
import fnmatch
import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from imgdata.errors import OptionError, OutputError
from imgdata.storage.atomic import FilePool, output_error, pwrite, whole_file
from imgdata.storage.cache_folder import CacheWarning, cache_folder, make_room
from imgdata.storage.folder import DatasetFolder, data_folder
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.locks import LockHeldError, locked
from imgdata.storage.remote import WEB, RemoteStore, joined_ranges
from imgdata.storage.remote_client import RemoteFacts

_OWN = ("views", "reviews")
"""Folders of a dataset that users write to."""
_FOLDER = "remote"
_WAIT_S = 120.0
"""Longest wait for a copy that another process makes; then this one reads the file as well."""
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class RemoteFolder(DatasetFolder):
    """A dataset in an object store, in which nothing is ever written.

    `local` copies a file into the cache folder, whole, once for each version (ETag). `read` asks the store for a range,
    and stays with the version that it saw first. What users make, such as saved views, lies in a folder of its own on
    this machine; the dataset's own views are copied there.
    """

    path: UrlPath

    def __init__(self, url: str | os.PathLike[str], *, store: RemoteStore | None = None) -> None:
        """Name the dataset; nothing is read yet."""
        self.store = store or RemoteStore(os.fspath(url))
        self.path = UrlPath(self.store.url)
        self.key = hashlib.sha256(f"{self.store.endpoint or ''} {self.store.url}".encode()).hexdigest()[:16]
        """Start of the names of its copies."""
        self.own = data_folder() / f"{_NOT_A_NAME.sub('-', self.path.name) or 'root'}-{self.key[:8]}"
        self.remedy = f"write {self} again"
        self._etags: dict[str, str] = {}
        """ETag of each file that was read: processes that get a copy of this folder stay with them as well."""
        self._copies: dict[str, Path] = {}
        self._sizes: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"RemoteFolder({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_etags": dict(self._etags),
            "_copies": dict(self._copies),
            "_sizes": dict(self._sizes),
        }

    @property
    def lists(self) -> bool:
        """Whether the store can list files: a plain web server can't."""
        return self.store.scheme not in WEB

    def place(self, name: str) -> UrlPath:
        """Return the URL of a file. Raises `ShardError` for a name that leads out of the folder."""
        return self.path / super().place(name).relative_to(self.path)

    def local(self, name: str) -> Path:
        """Return the path of a copy of a file on this machine; it is read from the store where there is none yet.

        Views and decisions are in a folder of the user's own, where there may be no such file. Raises `ShardError`,
        `RemoteMissingError`.
        """
        self.place(name)
        if name.split("/")[0] in _OWN:
            return self._own(name)
        copy = self._copies.get(name)
        if copy is None or not copy.exists():
            copy = self._copies[name] = self._copied(name)
        return copy

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes of a file from `offset` on, or all; fewer where the file ends before.

        Raises `ShardError`, also for a file that has changed since it was first read here.
        """
        self.place(name)
        data, facts = self.store.fetch(name, offset, size, etag=self._etags.get(name))
        self._etags.setdefault(name, facts.etag)
        self._sizes.setdefault(name, facts.size)
        return data

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each `(offset, size)` of a file, in few requests side by side. Raises as `read` does."""
        self.place(name)
        return self.store.read_ranges(name, ranges, etag=self.version(name))

    def local_ranges(self, name: str, what: str, ranges: Sequence[tuple[int, int]]) -> Path:
        """Return the path of a file on this machine that is as long as a file here and has these ranges of it.

        Between them is a hole. `what` names the ranges. Raises `ShardError`.
        """
        key = f"{name} {what}"
        copy = self._copies.get(key)
        if copy is None or not copy.exists():
            settings = self.store.settings
            wholes = joined_ranges(ranges, gap=settings.gap_bytes, most=settings.part_bytes)
            facts = self._facts(name)

            def fill(file: int) -> None:
                os.ftruncate(file, facts.size)

                def copy_range(number: int) -> None:
                    start, end, _ = wholes[number]
                    pwrite(file, self.store.read(name, start, end - start, etag=facts.etag), start)

                self.store.in_parallel(copy_range, len(wholes))

            copy = self._copies[key] = self._kept(facts, what, sum(end - start for start, end, _ in wholes), fill)
        return copy

    def size(self, name: str) -> int:
        """Return the size of a file in bytes. Raises `ShardError`."""
        return self._facts(name).size

    def remote(self, name: str) -> "tuple[RemoteFolder, str] | None":
        """Return this folder and the name: several folders that are read together return the one that has the file."""
        return self, name

    def version(self, name: str) -> str:
        """Return the ETag with which this folder reads a file; empty where the store has none. Raises `ShardError`."""
        return self._facts(name).etag

    def list(self, pattern: str = "*") -> list[str]:
        """Return the names of the files that match `pattern`, sorted; the user's own files are among them."""
        folder, _, last = pattern.rpartition("/")
        own = DatasetFolder(self.own).list(pattern)
        if not self.lists:
            return own
        prefix = f"{folder}/" if folder else ""
        names = [facts.name for facts in self.store.list(prefix)]
        found = {name for name in names if "/" not in name.removeprefix(prefix)}
        return sorted({*own, *(name for name in found if fnmatch.fnmatchcase(name.removeprefix(prefix), last))})

    def pool(self, names: Sequence[str]) -> FilePool:
        """Return copies of the files as one pool. Raises `ShardError` as `local` does."""
        return FilePool([self.local(name) for name in names])

    def _own(self, name: str) -> Path:
        """Return the path of the user's own file or folder, with the dataset's files there that the user has not."""
        folder = name.split("/")[0]
        if folder not in self._copies and self.lists:
            for one in self.store.list(f"{folder}/"):
                path = self.own / self.place(one.name).relative_to(self.path)
                if not path.exists():
                    _write(path, partial(pwrite, data=self.read(one.name), offset=0))
        self._copies[folder] = self.own / folder
        return self.own / name

    def _facts(self, name: str) -> RemoteFacts:
        """Return the facts of the version of a file with which this folder reads it."""
        if name not in self._etags or name not in self._sizes:
            self.place(name)
            facts = self.store.head(name)
            self._etags.setdefault(name, facts.etag)
            self._sizes.setdefault(name, facts.size)
        return RemoteFacts(name, self._sizes[name], self._etags[name])

    def _copied(self, name: str) -> Path:
        if name in self._sizes and name in self._etags:
            # This folder stays with the version that it has seen.
            facts = RemoteFacts(name, self._sizes[name], self._etags[name])
        else:
            facts = self._facts(name)

        def fill(file: int) -> None:
            self.store.copy_to(file, name, etag=facts.etag)

        return self._kept(facts, "", facts.size, fill)

    def _kept(self, facts: RemoteFacts, what: str, num_bytes: int, fill: Callable[[int], None]) -> Path:
        """Return the path of a copy, or of some ranges (`what`); `fill` writes `num_bytes` where there is none yet."""
        version = hashlib.sha256(f"{facts.name} {facts.etag} {facts.size}{what and f' {what}'}".encode()).hexdigest()
        file = f"{self.key}-{version[:16]}-{_NOT_A_NAME.sub('-', facts.name)}"
        file += f"+{_NOT_A_NAME.sub('-', what)[:40]}" if what else ""
        path = cache_folder() / _FOLDER / file

        def is_there() -> bool:
            return path.exists() and path.stat().st_size == facts.size

        if is_there():
            return path
        try:
            with _alone(path):
                if not is_there():
                    if not make_room(num_bytes):
                        raise OptionError(f"{num_bytes} bytes are more than it may hold; raise IMGDATA_CACHE_GB")
                    _write(path, fill)
        except (OptionError, OutputError) as error:
            path = Path(tempfile.mkdtemp(prefix="imgdata-")) / file
            warnings.warn(
                f"the copy of {self.place(facts.name)} can't be kept in the cache folder ({error}): it is {path}, and "
                "the next process reads it again",
                CacheWarning,
                stacklevel=2,
            )
            _write(path, fill)
        return path


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process of the machine at a time make a file, for a while: the others then find it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(LockHeldError, OSError):
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), wait_s=_WAIT_S, remove=True))
        yield


def _write(path: Path, fill: Callable[[int], None]) -> None:
    """Let `fill` write a file behind a descriptor; it gets its name when it is whole. Raises `OutputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, path) from error
    with whole_file(path, is_shared=True) as temporary, open(temporary, "wb") as file:
        fill(file.fileno())
