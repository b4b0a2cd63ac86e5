"""What a program does to a folder -> its steps -> every state of the folder that a crash or a power cut may leave.

Steps are found by comparing the folder before and after each call of the system, and not by what the calls say: so
what the extension, PyArrow or PyTorch write is seen as well. All writes to a file between two calls are one step.
"""

import builtins
import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgdata.shards import export

_CALLS = (
    *((os, name) for name in ("open", "close", "fsync", "fdatasync", "write", "pwrite", "ftruncate", "truncate")),
    (export, "sync_tree"),
    *((os, name) for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "symlink")),
    (io, "open"),
    (builtins, "open"),
)
FOLDER = -1
"""In the place of a file's number: the path is a folder."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change: `what` is make, write, move, remove or sync."""

    what: str
    path: str
    file: int
    """Number of the file, the same under all its names; `FOLDER` for a folder."""
    data: bytes = b""
    """Contents of the file after it was written."""
    source: str = ""
    """Where the file was before it was moved."""

    def __str__(self) -> str:
        return f"{self.what} {self.source and self.source + ' -> '}{self.path or '.'}"


@dataclass
class Trace:
    """The steps that were taken in a folder, and what it held before."""

    first: Mapping[str, bytes | None]
    """Contents of each file before the first step, None for a folder."""
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Crash:
    """A state that a crash may leave."""

    after: int
    """Steps that were taken."""
    how: str
    files: Mapping[str, bytes | None]
    """Contents of each file, None for a folder."""

    def put(self, folder: Path) -> Path:
        """Make the folder in this state."""
        folder.mkdir(parents=True)
        for name in sorted(self.files):
            data = self.files[name]
            if data is None:
                (folder / name).mkdir(parents=True, exist_ok=True)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        return folder


def held_by(folder: Path) -> dict[str, bytes | None]:
    """Contents of each file of a folder, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def traced(folder: Path) -> Iterator[Trace]:
    """Record what the block does in `folder`, in this process, by whatever library."""
    watch = _Watch(folder)
    originals = [(module, name, getattr(module, name)) for module, name in _CALLS]
    for module, name, call in originals:
        setattr(module, name, watch.around(call, syncs=name in ("fsync", "fdatasync", "sync_tree")))
    try:
        yield watch.trace
    finally:
        for module, name, call in originals:
            setattr(module, name, call)
        watch.look()


class _Watch:
    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)
        self._lock = threading.RLock()
        self._looking = 0
        """The thread that looks at the folder, whose own calls are none of the work's."""
        self._seen = self._look()
        self._numbers = {key: number for number, key in enumerate(dict.fromkeys(self._files().values()))}
        self._next = len(self._numbers)
        self.trace = Trace({path: data for path, (_, data) in self._seen.items()})

    def _files(self) -> dict[str, int]:
        return {path: inode for path, (inode, data) in self._seen.items() if data is not None}

    def around(self, call: Callable[..., Any], *, syncs: bool) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if self._looking == threading.get_ident():
                return call(*arguments, **options)
            with self._lock:
                self.look()
                made = call(*arguments, **options)
                if syncs:
                    self._synced(arguments[0])
                else:
                    self.look()
                return made

        return watched

    def _synced(self, descriptor: Any) -> None:
        if isinstance(descriptor, Path):
            # All below a folder.
            below = os.path.relpath(descriptor, self._folder)
            for path, (inode, data) in self._seen.items():
                if path == below or path.startswith(f"{below}/"):
                    self.trace.steps.append(Step("sync", path, FOLDER if data is None else self._numbers[inode]))
            return
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        inode = os.fstat(number).st_ino
        if inode == os.stat(self._folder).st_ino:
            self.trace.steps.append(Step("sync", "", FOLDER))
        for path, (known, data) in self._seen.items():
            if known == inode:
                self.trace.steps.append(Step("sync", path, FOLDER if data is None else self._numbers[inode]))

    def look(self) -> None:
        """Add the steps that lead from what was seen last to what the folder holds now."""
        with self._lock:
            before, after = self._seen, self._look()
            self._seen = after
            steps = self.trace.steps
            for path, (inode, data) in after.items():
                if data is None and path not in before:
                    same = (old for old, known in before.items() if known == (inode, None) and old not in after)
                    if source := next(same, None):
                        steps.append(Step("move", path, FOLDER, source=source))
                        before = {_moved(name, source, path): known for name, known in before.items()}
            gone = {inode: path for path, (inode, _) in before.items() if after.get(path, (0, b""))[0] != inode}
            for path, (inode, data) in after.items():
                if data is None:
                    if path not in before:
                        steps.append(Step("make", path, FOLDER))
                    continue
                old = before.get(path)
                if old is None or old[0] != inode:
                    source = gone.pop(inode, None)
                    if source is not None:
                        steps.append(Step("move", path, self._numbers[inode], source=source))
                        old = before[source]
                    else:
                        if old is not None:
                            steps.append(Step("remove", path, self._numbers[old[0]]))
                            gone.pop(old[0], None)
                        self._numbers[inode], self._next = self._next, self._next + 1
                        steps.append(Step("make", path, self._numbers[inode]))
                        old = (inode, b"")
                if data != old[1]:
                    steps.append(Step("write", path, self._numbers[inode], data))
            for inode, path in sorted(gone.items(), key=lambda one: -len(one[1])):
                if path not in after:
                    steps.append(Step("remove", path, FOLDER if before[path][1] is None else self._numbers[inode]))

    def _look(self) -> dict[str, tuple[int, bytes | None]]:
        self._looking = threading.get_ident()
        try:
            return dict(sorted(self._below("")))
        finally:
            self._looking = 0

    def _below(self, folder: str) -> Iterator[tuple[str, tuple[int, bytes | None]]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(self._folder, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield path, (entry.inode(), None)
                    yield from self._below(path)
                elif entry.is_file(follow_symlinks=False):
                    yield path, (entry.inode(), _contents(entry.path))


def _moved(name: str, source: str, path: str) -> str:
    """The name of a file after a folder was moved."""
    return path + name[len(source) :] if name == source or name.startswith(f"{source}/") else name


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def killed(trace: Trace) -> list[Crash]:
    """The states after each step: what is left where a process is killed and the system lives on."""
    return _distinct(Crash(after, "killed", _state(trace, after)) for after in range(len(trace.steps) + 1))


def powerless(trace: Trace) -> list[Crash]:
    """The further states where the power goes: what was not synced is lost, in part or in whole, in any order."""
    return _distinct(_lost(trace), but=killed(trace))


def crash_after(trace: Trace, after: int, how: str) -> Crash:
    """The state after so many steps: killed, or without power; of unsynced data there is nothing, half or zeros."""
    if how == "killed":
        return Crash(after, how, _state(trace, after))
    return Crash(after, how, _state(trace, after, set(_unsynced_names(trace.steps[:after])), unsynced=how))


def _lost(trace: Trace) -> Iterator[Crash]:
    for after in range(len(trace.steps) + 1):
        for how in ("nothing", "half", "zeros"):
            yield Crash(after, f"of unsynced data there is {how}", _state(trace, after, unsynced=how))
        loose = _unsynced_names(trace.steps[:after])
        for how in ("all", "nothing"):
            yield Crash(after, f"unsynced names lost, of data {how}", _state(trace, after, set(loose), unsynced=how))
        for one in loose[:-1]:
            yield Crash(after, f"lost: {trace.steps[one]}", _state(trace, after, {one}))


def _distinct(crashes: Iterator[Crash], but: Sequence[Crash] = ()) -> list[Crash]:
    found: dict[str, Crash] = {}
    seen = {_key(crash) for crash in but}
    for crash in crashes:
        key = _key(crash)
        if key not in seen:
            found.setdefault(key, crash)
    return list(found.values())


def _key(crash: Crash) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(crash.files.items()):
        digest.update(f"{name}\0{'folder' if data is None else len(data)}\0".encode() + (data or b""))
    return digest.hexdigest()


def _unsynced_names(steps: Sequence[Step]) -> list[int]:
    """The numbers of the steps on names, of whose folders none was synced later."""
    return [
        number
        for number, step in enumerate(steps)
        if step.what in ("make", "move", "remove")
        and not any(
            later.what == "sync"
            and later.file == FOLDER
            and later.path in (os.path.dirname(step.path), os.path.dirname(step.source) if step.source else None)
            for later in steps[number + 1 :]
        )
    ]


def _state(
    trace: Trace, after: int, lost: frozenset[int] | set[int] = frozenset(), unsynced: str = "all"
) -> dict[str, bytes | None]:
    names: dict[str, int] = {}
    data: dict[int, bytes] = {}
    durable: dict[int, bytes] = {}
    for path, contents in trace.first.items():
        names[path] = FOLDER if contents is None else len(data)
        if contents is not None:
            data[len(data)] = contents
    durable.update(data)
    for number, step in enumerate(trace.steps[:after]):
        match step.what:
            case "write":
                data[step.file] = step.data
            case "sync" if step.file != FOLDER:
                durable[step.file] = data.get(step.file, b"")
            case "make" if number not in lost:
                names[step.path] = step.file
            case "move" if number not in lost and step.file == FOLDER:
                names = {_moved(name, step.source, step.path): file for name, file in names.items()}
            case "move" if number not in lost:
                names.pop(step.source, None)
                names[step.path] = step.file
            case "remove" if number not in lost:
                names.pop(step.path, None)
    return {path: None if file == FOLDER else _left(data, durable, file, unsynced) for path, file in names.items()}


def _left(data: Mapping[int, bytes], durable: Mapping[int, bytes], file: int, unsynced: str) -> bytes:
    new, old = data.get(file, b""), durable.get(file, b"")
    if new == old or unsynced == "all":
        return new
    if unsynced == "nothing":
        return old
    if unsynced == "half":
        return new[: (len(old) + len(new)) // 2] if new.startswith(old) else new[: len(new) // 2]
    return old[: len(new)] + bytes(max(len(new) - len(old), 0))
