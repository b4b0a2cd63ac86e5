"""URLs that obstore does not know, such as `hf://` -> a client by fsspec, where it is installed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imgdata.errors import MissingExtraError, OptionError
from imgdata.storage.remote_client import PutMode, RemoteFacts


class FsspecClient:
    """See `Client`."""

    def __init__(self, url: str, endpoint: str | None) -> None:
        """Find the file system of a URL. Raises `MissingExtraError`, `OptionError`."""
        scheme = url.partition("://")[0]
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{scheme}:// needs fsspec: pip install fsspec") from error
        if endpoint is not None:
            raise OptionError(f"endpoint must be left out for {scheme}://, got {endpoint!r}; it is for s3://")
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise OptionError(f"{url}: no URL that obstore or fsspec can open ({error})") from error
        self._root = self._root.rstrip("/")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def head(self, path: str) -> RemoteFacts:
        """See `Client`."""
        return self._facts(path, self._files.info(self._path(path)))

    def get(self, path: str, start: int, end: int | None, etag: str | None) -> tuple[bytes, RemoteFacts]:
        """See `Client`."""
        return self._files.cat_file(self._path(path), start=start, end=end), self.head(path)

    def list(self, prefix: str) -> Iterator[RemoteFacts]:
        """See `Client`."""
        for place, info in self._files.find(self._path(prefix.rstrip("/")), detail=True).items():
            yield self._facts(place.removeprefix(f"{self._root}/"), info)

    def put(self, path: str, data: bytes | Path, mode: PutMode, part_bytes: int | None) -> str:
        """See `Client`."""
        if mode != "overwrite":
            raise OptionError(f"{self._root}: this kind of store has no conditions for writing; write to s3://")
        self._files.makedirs(self._path(path).rpartition("/")[0], exist_ok=True)
        if isinstance(data, Path):
            self._files.put_file(str(data), self._path(path))
        else:
            self._files.pipe_file(self._path(path), data)
        return self.head(path).etag

    def copy(self, path: str, to: str) -> None:
        """See `Client`."""
        self._files.makedirs(self._path(to).rpartition("/")[0], exist_ok=True)
        self._files.cp_file(self._path(path), self._path(to))

    def delete(self, path: str) -> None:
        """See `Client`."""
        self._files.rm_file(self._path(path))

    def _facts(self, path: str, info: Mapping[str, Any]) -> RemoteFacts:
        known = next((info[key] for key in ("ETag", "etag", "blob_id", "sha256", "mtime") if info.get(key)), "")
        return RemoteFacts(path, int(info["size"]), str(known))
