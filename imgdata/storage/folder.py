"""Where a dataset lies, the name of a file of it -> the file's bytes, its path, open descriptors."""

from collections.abc import Sequence
from pathlib import Path

from imgdata.errors import ShardError
from imgdata.storage.atomic import FilePool


class DatasetFolder:
    """The folder of a dataset: the one door to its files. Picklable, and safe to use from threads and after a fork.

    A name is one that `dataset.json` or an index says: it must lie in the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"DatasetFolder({str(self.path)!r})"

    def __str__(self) -> str:
        return str(self.path)

    def local(self, name: str) -> Path:
        """Return the path of a file. Raises `ShardError` for a name that leads out of the folder."""
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
