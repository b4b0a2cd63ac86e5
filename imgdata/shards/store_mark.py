"""A folder of an object store -> what is being written there: one object, which all machines read and few replace.

    .imgdata/plan.json      options, source and cuts, as in a job folder; and

        host        the machine that began it
        next        whether shards lie in `.imgdata/next/`, to replace those of a finished dataset
        old         files of that dataset, once it is being replaced
        plan_id     the frozen plan of parts; see `store_parts`
        closing     whether all parts are written, and finishing has begun
        append      whether it is an append to the dataset there; see `store_append`
        adding      names that its objects are getting

It is replaced on condition that it is still the one that was read, where the server knows conditions.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from imgdata.dataset.manifest import MANIFEST, Manifest, parse_manifest
from imgdata.errors import OptionError, OutputError
from imgdata.shards.standing import PLAN, to_json
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.local_paths import UrlPath, local_path, url_scheme
from imgdata.storage.remote import WEB, RemoteConflictError, RemoteMissingError, RemoteStore

MARK, NEXT_PREFIX = f"{JOB_FOLDER}/{PLAN}", f"{JOB_FOLDER}/next/"
_PROBE = f"{JOB_FOLDER}/probe"


def store_at(url: str | os.PathLike[str]) -> RemoteStore:
    """Return the store at `url`. Raises `OptionError` where there can be none to write to."""
    if url_scheme(url) == "file":
        local_path(url, "OUT")
    store = RemoteStore(os.fspath(url))
    if store.scheme in WEB:
        raise OptionError(f"OUT: {store.url}: a web server takes no uploads; give an s3://, gs:// or az:// URL")
    return store


def knows_conditions(store: RemoteStore) -> bool:
    """Return whether the server knows conditional writes. Raises `OutputError` where nothing can be written."""
    try:
        with contextlib.suppress(RemoteConflictError):
            # By another run, now or killed.
            store.put(_PROBE, b"first", only_if_absent=True)
        store.put(_PROBE, b"second", only_if_absent=True)
        knows = False
    except RemoteConflictError:
        knows = True
    except (OptionError, OutputError):
        store.put(_PROBE, b"without a condition")
        knows = False
    store.delete(_PROBE)
    return knows


def read_mark(store: RemoteStore) -> dict[str, Any] | None:
    """Return what is being written; None where nothing is. Raises `OutputError`, `ShardError`."""
    found = fetch_mark(store)
    return None if found is None else found[0]


def fetch_mark(store: RemoteStore) -> tuple[dict[str, Any], str] | None:
    """Return what is being written, and the ETag of the object that says so. Raises as `read_mark`."""
    try:
        data, facts = store.fetch(MARK)
        return dict(json.loads(data)), facts.etag
    except RemoteMissingError:
        return None
    except ValueError:
        raise OutputError(f"{store.place(MARK)}: damaged; remove it, and the unfinished dataset beside it") from None


def replace_mark(store: RemoteStore, values: Mapping[str, Any], etag: str | None) -> None:
    """Write the mark where it has the ETag `etag` still, None for no mark. Raises `RemoteConflictError`."""
    _put_where(store, MARK, to_json(values), etag)


def read_manifest_at(store: RemoteStore) -> Manifest | None:
    """Return what `dataset.json` says; None where there is none. Raises `ShardError`."""
    try:
        return parse_manifest(store.read(MANIFEST), UrlPath(store.url) / MANIFEST)
    except RemoteMissingError:
        return None


def put_new(store: RemoteStore, name: str, data: bytes) -> None:
    """Write an object that is not there yet. Raises `RemoteConflictError` where it is, and `OutputError`."""
    _put_where(store, name, data, None)


def _put_where(store: RemoteStore, name: str, data: bytes, etag: str | None) -> None:
    """Write an object where it has the ETag `etag` still, None for no object. Raises as `put_new`."""
    try:
        store.put(name, data, only_if_absent=etag is None, if_match=etag)
    except RemoteConflictError:
        raise
    except (OptionError, OutputError):
        # A server without conditions; what else is wrong shows here again.
        store.put(name, data)


def delete_all(store: RemoteStore, names: list[str]) -> None:
    """Remove objects, in any order. Raises `OutputError`."""
    store.in_parallel(lambda number: store.delete(names[number]), len(names))
