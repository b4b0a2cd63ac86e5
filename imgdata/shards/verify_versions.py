"""A dataset that has grown -> faults of its earlier versions: each must be the beginning of what is there now."""

from pathlib import Path

import numpy as np

from imgdata.dataset.index import Index, index_id
from imgdata.dataset.manifest import MANIFEST, Manifest, SplitEntry
from imgdata.dataset.split import open_index
from imgdata.errors import ShardError
from imgdata.shards.standing import APPEND
from imgdata.shards.verify_shard import Fault
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import file_sha256

_REBUILD = "rebuild the sidecars with `imgdata index` on the folder"
_PREFIX = ("xxh64", "label", "offset", "size")
"""Columns whose first rows must be those of the earlier version."""


def check_versions(folder: Path, manifest: Manifest) -> list[Fault]:
    """Return the faults of the versions before this one; the index of this one is checked by itself."""
    now = {split.name: split for split in manifest.splits}
    seen: set[str] = {split.index for split in manifest.splits}
    faults = []
    for number, version in enumerate(manifest.versions, 1):
        in_parts = {split.name: split.index_sha256 for split in manifest.at(number).splits if split.parts is not None}
        for name, split in version.splits.items():
            if split.index in seen:
                continue
            seen.add(split.index)
            if name in in_parts:
                # Its parts are the first ones of what is there now, which is checked by itself.
                right = split.fingerprint == in_parts[name][: len(split.fingerprint)]
                why = None if right else f"fingerprint must be that of its parts, as {MANIFEST} says"
            else:
                why = _fault(folder, split.index, split.index_sha256, split.fingerprint, now[name])
            if why is not None:
                faults.append(Fault(split.index, "", -1, f"{why}; {_REBUILD}"))
    return faults


def _fault(folder: Path, name: str, sha256: str, fingerprint: str, now: SplitEntry) -> str | None:
    try:
        found = file_sha256(folder / name)
        if found != sha256:
            return f"sha256 is {found}, must be {sha256}"
        index, newest = Index(folder / name), open_index(DatasetFolder(folder), now)
        if index_id(index) != fingerprint:
            return f"fingerprint is {index_id(index)}, must be {fingerprint} as {MANIFEST} says"
        same = all(np.array_equal(index.array(one), newest.array(one)[: len(index)]) for one in _PREFIX)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    except ShardError as error:
        return str(error).removeprefix(f"{folder / name}: ")
    return None if same else f"its rows are not the first ones of {now.index}"


def is_being_appended(folder: Path) -> bool:
    """Return whether an append is whole and was interrupted before it was the dataset's next version."""
    return (folder / JOB_FOLDER / APPEND / MANIFEST).exists()
