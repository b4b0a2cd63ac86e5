"""A URL and the environment -> a client of S3, Google's, Azure's or a plain web server's store, by obstore."""

import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from imgdata.errors import MissingExtraError, OptionError
from imgdata.storage.remote_client import PutMode, RemoteFacts, RemoteSettings
from imgdata.storage.remote_environment import AMAZON, AZURE, GOOGLE, client_settings
from imgdata.storage.remote_errors import credentials_of, reason_of

SCHEMES = AMAZON | GOOGLE | AZURE | {"http", "https"}
"""Schemes of URLs that obstore knows."""


class ObstoreClient:
    """See `Client`."""

    def __init__(self, url: str, endpoint: str | None, settings: RemoteSettings) -> None:
        """Connect to nothing yet."""
        self._obstore = import_obstore()
        scheme = url.partition("://")[0].lower()
        config, plain = client_settings(scheme, endpoint, os.environ)
        self._needs_version = scheme in GOOGLE
        options = {
            "allow_http": plain,
            "connect_timeout": timedelta(seconds=settings.connect_s),
            "read_timeout": timedelta(seconds=settings.stall_s),
            "timeout": timedelta(seconds=settings.request_s),
            "user_agent": "imgdata",
        }
        once = {"max_retries": 0, "retry_timeout": timedelta(seconds=settings.request_s)}
        pauses = {
            "init_backoff": timedelta(seconds=settings.backoff_s),
            "max_backoff": timedelta(seconds=settings.max_backoff_s),
            "base": 2,
        }
        again = {**once, "max_retries": settings.tries - 1, "backoff": pauses}
        try:
            stores = [
                self._obstore.store.from_url(url, client_options=options, retry_config=retries, **config)
                for retries in (once, again)
            ]
        except (self._obstore.exceptions.BaseError, ValueError) as error:
            raise OptionError(
                f"{url}: can't be opened ({reason_of(error)}); check the URL, and {credentials_of(scheme)}"
            ) from error
        self._store, self._uploads = stores

    def head(self, path: str) -> RemoteFacts:
        """See `Client`."""
        return _facts(self._obstore.head(self._store, path))

    def get(self, path: str, start: int, end: int | None, etag: str | None) -> tuple[bytes, RemoteFacts]:
        """See `Client`."""
        options: dict[str, Any] = {}
        if end is not None:
            options["range"] = (start, end)
        elif start:
            options["range"] = {"offset": start}
        if etag is not None and etag.startswith('"'):
            options["if_match"] = etag
        found = self._obstore.get(self._store, path, options=options)
        facts = _facts(found.meta)
        return bytes(found.bytes()), facts

    def list(self, prefix: str) -> Iterator[RemoteFacts]:
        """See `Client`."""
        for chunk in self._obstore.list(self._store, prefix or None, chunk_size=1000):
            yield from map(_facts, chunk)

    def put(self, path: str, data: bytes | Path, mode: PutMode, part_bytes: int | None) -> str:
        """See `Client`."""
        if part_bytes is not None:
            put = self._obstore.put(
                self._uploads, path, data, use_multipart=True, chunk_size=part_bytes, max_concurrency=4
            )
        else:
            condition = mode if mode in ("overwrite", "create") else self._condition(path, mode)
            put = self._obstore.put(self._store, path, data, use_multipart=False, mode=condition)
        return _quoted(put["e_tag"] or "")

    def _condition(self, path: str, etag: str) -> dict[str, str]:
        """Return the condition that an object has this ETag. Raises obstore's error where it has another one."""
        if not self._needs_version:
            return {"e_tag": etag}
        # Google compares numbers of generations.
        found = self._obstore.head(self._store, path)
        if _facts(found).etag != etag:
            raise self._obstore.exceptions.PreconditionError(f"{path} has another ETag")
        return {"e_tag": etag, "version": found["version"]}

    def copy(self, path: str, to: str) -> None:
        """See `Client`."""
        self._obstore.copy(self._store, path, to)

    def delete(self, path: str) -> None:
        """See `Client`."""
        self._obstore.delete(self._store, path)


def _facts(meta: Mapping[str, Any]) -> RemoteFacts:
    etag = _quoted(meta["e_tag"] or "") or f"{meta['last_modified'].isoformat()}-{meta['size']}"
    return RemoteFacts(meta["path"], meta["size"], etag)


def _quoted(etag: str) -> str:
    """Return an ETag as headers have it: lists of Azure leave out the quotes."""
    return etag if not etag or etag.startswith(('"', 'W/"')) else f'"{etag}"'


_FORKED = False


def _after_fork() -> None:
    global _FORKED
    _FORKED = _FORKED or "obstore._obstore" in sys.modules


os.register_at_fork(after_in_child=_after_fork)


def import_obstore() -> Any:
    """Return the package obstore, of which a forked process gets a copy of its own. Raises `MissingExtraError`."""
    global _FORKED
    if _FORKED:
        # Its threads have stayed in the parent: what was loaded there waits for ever here.
        _load_again()
        _FORKED = False
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ModuleNotFoundError as error:
        raise MissingExtraError("object stores need obstore: pip install 'imgdata[remote]'") from error
    return obstore


def _load_again() -> None:
    """Load obstore from a copy of its library: the loader of the system gives one file to a process once."""
    name = "obstore._obstore"
    path = sys.modules[name].__file__
    assert path is not None
    for known in [known for known in sys.modules if known.split(".")[0] == "obstore"]:
        del sys.modules[known]
    with tempfile.NamedTemporaryFile(suffix=".so") as copy:
        copy.write(Path(path).read_bytes())
        copy.flush()
        loader = importlib.machinery.ExtensionFileLoader(name, copy.name)
        spec = importlib.util.spec_from_file_location(name, copy.name, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    sys.modules[name] = module
