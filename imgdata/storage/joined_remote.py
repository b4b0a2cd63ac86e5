"""The folders of several datasets, some of them in object stores -> bytes of a file by ranges, wherever it is."""

from collections.abc import Sequence
from pathlib import Path

from imgdata.storage.folder import DatasetFolder, JoinedFolder
from imgdata.storage.remote_folder import RemoteFolder


class JoinedRemoteFolder(JoinedFolder):
    """Several folders of which one at least is in an object store. A name is `NUMBER/NAME`; see `JoinedFolder`.

    What reads shards from a `RemoteFolder` reads them from here as well.
    """

    def __init__(self, folders: Sequence[DatasetFolder]) -> None:
        super().__init__(folders)
        self.store = next(folder.store for folder in folders if isinstance(folder, RemoteFolder))
        """One of the stores, for its settings and its threads."""

    def place(self, name: str) -> Path:
        """Return the path or URL of a file. Raises `ShardError` as `JoinedFolder.place` does."""
        folder, rest = self._part(name)
        return folder.place(rest)

    def local(self, name: str) -> Path:
        """Return the path of a file, or of its copy on this machine. Raises `ShardError`."""
        folder, rest = self._part(name)
        return folder.local(rest)

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes of a file from `offset` on, or all. Raises `ShardError`, `OSError`."""
        folder, rest = self._part(name)
        return folder.read(rest, offset, size)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes. Raises `ShardError`, `OSError`."""
        folder, rest = self._part(name)
        return folder.size(rest) if isinstance(folder, RemoteFolder) else folder.local(rest).stat().st_size

    def remote(self, name: str) -> tuple[RemoteFolder, str] | None:
        """Return the folder in an object store that has a file, and its name there; None for one on this machine."""
        folder, rest = self._part(name)
        return (folder, rest) if isinstance(folder, RemoteFolder) else None

    def _part(self, name: str) -> tuple[DatasetFolder, str]:
        number, rest = self.parted(name)
        return self.folders[number], rest
