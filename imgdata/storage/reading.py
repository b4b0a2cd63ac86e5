"""A path -> an open regular file, its bytes, or the JSON in it: each within bounds.

Files of a dataset may come from anyone. A pipe or a device under the name of a file would block a reader for ever or
never end, and a small file can hold a number, a nesting or a text that no program can handle.
"""

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

MAX_JSON_BYTES = 256 * 2**20
"""Largest JSON file or line that is read: `dataset.json` has about 60 bytes for each class and 150 for each shard."""
MAX_MEMBER_BYTES = 2**30
"""Largest image: a file or a tar may have holes, in which terabytes cost its author nothing."""
MAX_JSON_DEPTH = 100
"""Levels of lists and objects inside each other."""

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "a named pipe"),
    (stat.S_ISSOCK, errno.EINVAL, "a socket"),
    (stat.S_ISCHR, errno.EINVAL, "a device"),
    (stat.S_ISBLK, errno.EINVAL, "a device"),
)


class Filling(Protocol):
    """What the files of a folder get their bytes from, when they are opened."""

    def fill(self, name: str) -> None:
        """Write the bytes of a file of the folder, where it is one that has none yet."""
        ...

    def stream(self, name: str) -> BinaryIO | None:
        """Return a file that reads such bytes where they lie; None for one that is in the folder."""
        ...


_FILLING: dict[str, Filling] = {}
"""Folders whose files get their bytes when they are opened."""


@contextlib.contextmanager
def filled_on_opening(folder: str | os.PathLike[str], filling: Filling) -> Iterator[None]:
    """Let `filling` give each file below `folder` its bytes before it is opened here, inside the block."""
    place = f"{os.fspath(folder)}/"
    _FILLING[place] = filling
    try:
        yield
    finally:
        del _FILLING[place]


def _filling_of(path: str) -> tuple[Filling, str] | None:
    for place, filling in list(_FILLING.items()):
        if path.startswith(place):
            return filling, path.removeprefix(place)
    return None


def streamed(path: str | os.PathLike[str]) -> BinaryIO | None:
    """Return a file that reads the bytes of `path` from elsewhere, for libraries that read parts of large files.

    None for a file that is on this machine, which is opened by its name.
    """
    found = _filling_of(os.fspath(path))
    return None if found is None else found[0].stream(found[1])


def open_regular(path: str | os.PathLike[str], flags: int = 0) -> int:
    """Open the regular file at `path` for reading and return its descriptor; links are followed.

    Also serves as `opener` of the built-in `open`, whose `flags` are not needed. Never waits: raises `OSError` that
    says what is there instead of a file, such as a named pipe.
    """
    found = _filling_of(os.fspath(path)) if _FILLING else None
    if found is not None:
        found[0].fill(found[1])
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise _not_regular(os.stat(path).st_mode, path) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _not_regular(mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _not_regular(mode: int, path: str | os.PathLike[str]) -> OSError:
    number, what = next(((number, what) for test, number, what in _KINDS if test(mode)), (errno.EINVAL, "no file"))
    return OSError(number, f"{what}, must be a regular file", os.fspath(path))


def require_regular(path: str | os.PathLike[str]) -> int:
    """Return the size in bytes of the regular file at `path`, for libraries that open it by name.

    Raises `OSError` as `open_regular` does.
    """
    descriptor = open_regular(path)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def read_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the bytes of the regular file at `path`. Raises `OSError`, also for more than `max_bytes`."""
    with open(path, "rb", opener=open_regular) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(max_bytes + 1) if size <= max_bytes else b""
    if size > max_bytes or len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"has more than {max_bytes:,} bytes, the limit for such a file", os.fspath(path))
    return data


_SYSTEM = frozenset(
    (errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT)
)
"""Error numbers of a system that can't read a file now, whatever its bytes."""


def is_of_the_system(error: BaseException | None) -> bool:
    """Return whether an error says that the system could not read a file, and nothing of the file's bytes."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SYSTEM)


def damage(what: str, error: Exception, remedy: str) -> str:
    """Return the words for a file of which a library says `error`: `what` it is, and the remedy.

    Where the system could not read the file that is all that is said: what can be made again would be made in vain.
    """
    if isinstance(error, OSError) and is_of_the_system(error):
        return f"can't be read: {os.strerror(error.errno or errno.EIO)}"
    return f"{what} ({error}); {remedy}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal. Raises `OSError`."""
    with open(path, "rb", opener=open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of the JSON file at `path`. Raises `OSError`, and `ValueError` as `parse_json` does."""
    return parse_json(read_file(path, max_bytes))


def parse_json(data: bytes | str) -> Any:
    """Return the value of the JSON text `data`, in UTF-8 where it is bytes.

    Raises `ValueError` that says what is wrong: no JSON, nested too deeply, too long a number, or text with half of a
    surrogate pair, which can't be written to any file.
    """
    if isinstance(data, bytes | bytearray):
        data = data.decode(json.detect_encoding(data))
    try:
        value = json.loads(data)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        raise ValueError("a number has too many digits") from None
    # Most texts have no more brackets than may stand inside each other.
    if data.count("[") + data.count("{") > MAX_JSON_DEPTH:
        _check_depth(value)
    if ("\\ud" in data or "\\uD" in data) and not _is_text(value):
        raise ValueError(r"half of a surrogate pair (\ud800 to \udfff), which is no text")
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _is_text(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def bounded_lines(file: TextIO, max_chars: int) -> Iterator[str]:
    """Yield the lines of `file`; raises `OSError` for one of more than `max_chars` characters."""
    number = 0
    while line := file.readline(max_chars + 1):
        number += 1
        if len(line) > max_chars:
            raise OSError(errno.EFBIG, f"line {number} has more than {max_chars:,} characters")
        yield line


def unnamed_file() -> int:
    """Return the descriptor of an empty file without a name: in memory where the system can, else on the disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("imgdata", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
