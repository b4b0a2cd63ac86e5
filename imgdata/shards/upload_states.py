"""A finished dataset in an object store, its source -> whether the source still holds the images that were stored.

The state of the source's files is kept in the cache folder. On another machine, or where the cache folder was cleared,
all images are compared, as for a dataset in a folder that was copied.
"""

import contextlib
import hashlib
import json
from pathlib import Path

from imgdata.dataset.manifest import Manifest
from imgdata.errors import OutputError
from imgdata.shards.changes import changed_images, stored_in_dataset
from imgdata.shards.options import ShardOptions
from imgdata.shards.store_parts import upload_folder
from imgdata.shards.summary import Watcher
from imgdata.sources.listing import Listing
from imgdata.sources.reading import with_states
from imgdata.storage.atomic import write_atomic
from imgdata.storage.remote_folder import RemoteFolder


def images_changed_since(
    url: str, manifest: Manifest, listing: Listing, options: ShardOptions, *, workers: int, watch: Watcher
) -> list[str]:
    """Return the names of the images that have other bytes in the source than in the dataset at `url`.

    Raises `ShardError`, `SourceError`.
    """
    listing, state = with_states(listing)
    # No files, no change: what `synthetic:` draws is a function of its name, and objects have ETags.
    if not state or _noted(url, manifest) == state:
        return []
    watch.stage("comparing images with the source")
    stored = stored_in_dataset(RemoteFolder(url), manifest)
    names = changed_images(listing, stored, options, manifest.image_extension, workers=workers)
    if not names:
        note_state(url, manifest, state)
    return names


def note_state(url: str, manifest: Manifest, state: str | None) -> None:
    """Note that the dataset at `url` fits source files in this state."""
    if not state:
        return
    path = _path(url)
    # Without a note the next run compares.
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"dataset": _name(manifest), "state": state}).encode())


def _noted(url: str, manifest: Manifest) -> str | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        noted = json.loads(_path(url).read_bytes())
        if noted["dataset"] == _name(manifest):
            return str(noted["state"])
    return None


def _path(url: str) -> Path:
    return upload_folder(url, None).with_suffix(".state")


def _name(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.to_bytes()).hexdigest()
