"""Where a dataset lies, the name of a file of it -> the file's bytes, its path, open descriptors."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgdata.errors import ShardError
from imgdata.storage.atomic import FilePool


class DatasetFolder:
    """The folder of a dataset: the one door to its files. Picklable, and safe to use from threads and after a fork.

    A name is one that `dataset.json` or an index says: it must lie in the folder.
    """

    remedy: str | None = None
    """How a damaged index is made again; None for what all datasets have in common, `imgdata index`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"DatasetFolder({str(self.path)!r})"

    def __str__(self) -> str:
        return str(self.path)

    def local(self, name: str) -> Path:
        """Return the path of a file on this machine. Raises `ShardError` for a name that leads out of the folder."""
        return self.place(name)

    def place(self, name: str) -> Path:
        """Return where a file is, for messages: its path, or its URL. Raises `ShardError` as `local` does."""
        if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise ShardError(f"{self}: a file of a dataset must lie in its folder, got the name {name!r}")
        return self.path / name

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes of a file from `offset` on, or all; fewer where the file ends before.

        Raises `ShardError` as `local` does, and `OSError`.
        """
        path = self.local(name)
        if size is None:
            return path.read_bytes()[offset:]
        return FilePool([path]).read(0, offset, size)

    def list(self, pattern: str = "*") -> list[str]:
        """Return the names of the files that match `pattern`, sorted; none where there is no such folder."""
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.glob(pattern) if path.is_file())

    def pool(self, names: Sequence[str]) -> FilePool:
        """Return the files as one pool, for reads at random. Raises `ShardError` as `local` does."""
        return FilePool([self.local(name) for name in names])


class LooseFolder(DatasetFolder):
    """The folder or file of a raw dataset, in which nothing is ever written.

    Its index is in the cache folder, and what users make, such as saved views, in a folder of its own.
    """

    def __init__(self, path: str | Path, *, kept: Path, key: str, read: Mapping[str, Any] | None = None) -> None:
        """Name the raw dataset, the folder that keeps its index, and the start of the names of the files there.

        `read` says how the dataset was read, where its layout left a choice: plain values.
        """
        super().__init__(path)
        self.kept = kept
        self.key = key
        self.read_as = dict(read or {})
        self.own = own_folder(self.path)
        self.remedy = f"open {self} again"

    def __repr__(self) -> str:
        return f"LooseFolder({str(self.path)!r})"

    def place(self, name: str) -> Path:
        """Return the path of a file that imgdata keeps for the dataset. Raises `ShardError`."""
        place = super().place(name).relative_to(self.path)
        if name == "dataset.json":
            return self.kept / f"{self.key}.json"
        return (self.kept if name.startswith(self.key) else self.own) / place

    def list(self, pattern: str = "*") -> list[str]:
        """Return the names of the user's files that match `pattern`, sorted."""
        return DatasetFolder(self.own).list(pattern)


class JoinedFolder(DatasetFolder):
    """The folders of several datasets that are read together. A name is `NUMBER/NAME`: which folder, which file there.

    Nothing is written to it.
    """

    def __init__(self, folders: Sequence[DatasetFolder]) -> None:
        super().__init__(folders[0].path)
        self.folders = tuple(folders)

    def __repr__(self) -> str:
        return f"JoinedFolder({list(map(str, self.folders))})"

    def __str__(self) -> str:
        return " + ".join(map(str, self.folders))

    def place(self, name: str) -> Path:
        """Return the path of a file. Raises `ShardError` for a name that leads out of the folders, or has no number."""
        number, rest = self.parted(name)
        return self.folders[number].local(rest)

    def parted(self, name: str) -> tuple[int, str]:
        """Return the number of the folder that a name says, and the name there. Raises `ShardError`."""
        number, _, rest = name.partition("/")
        if not number.isdigit() or int(number) >= len(self.folders):
            raise ShardError(
                f"{self}: {name!r} is of one dataset, got several that are read together; take one of them"
            )
        return int(number), rest

    def list(self, pattern: str = "*") -> list[str]:
        """Return nothing: files are listed dataset by dataset."""
        return []


def own_folder(path: Path) -> Path:
    """Return the folder for what users make for the raw dataset at `path`: views, decisions; it may not exist yet."""
    place = os.path.realpath(path)
    return data_folder() / f"{os.path.basename(place) or 'root'}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"


def data_folder() -> Path:
    """Return `$IMGDATA_DATA`, else `$XDG_DATA_HOME/imgdata`, else `~/.local/share/imgdata`; it may not exist yet."""
    given, common = os.environ.get("IMGDATA_DATA"), os.environ.get("XDG_DATA_HOME")
    return (Path(given) if given else Path(common or "~/.local/share") / "imgdata").expanduser()
