"""A folder -> which dataset is in it, begun or finished, and how it differs from the one that is wanted."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgdata.dataset.manifest import MANIFEST, Manifest, read_manifest
from imgdata.errors import OutputError
from imgdata.shards.options import differences
from imgdata.storage import reading
from imgdata.storage.atomic import JOB_FOLDER

PLAN, NEXT, APPEND = "plan.json", "next", "append"
"""Names in a job folder: the plan of an unfinished dataset, the folder of one that is to replace a finished one, and
of one that is to be put behind it."""


def standing_of(out: Path, identity: Mapping[str, Any]) -> str | None:
    """Return what is in `out` and what a run for the dataset `identity` would do about it; None for a new folder."""
    if not out.exists() or not any(out.iterdir()):
        return None
    beside = out / JOB_FOLDER / NEXT
    begun = identity_in(beside) if beside.exists() else None
    if begun is not None and not changes(begun, identity):
        return "exists: an overwrite with these options was begun here, a run resumes it"
    found = identity_in(out)
    if found is None:
        unknown = any(entry.name != JOB_FOLDER for entry in out.iterdir())
        return "exists: not empty, and not made by imgdata; a run is refused" if unknown else None
    changed = changes(found, identity)
    if changed:
        return f"exists: another dataset is there ({'; '.join(changed)}); a run is refused without --overwrite"
    return "exists: complete already" if finished_in(out) else "exists: begun with these options, a run resumes it"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object at `path`; None when there is no such file."""
    try:
        values = reading.read_json(path)
        if not isinstance(values, dict):
            raise ValueError(f"must be a JSON object, got {type(values).__name__}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno != errno.EFBIG:
            raise
        raise OutputError(f"{path}: damaged; delete the folder {path.parent.parent} and start again") from error
    return values


def to_json(values: Mapping[str, Any]) -> bytes:
    """Return the values as text of JSON."""
    return json.dumps(values, indent=2).encode()


def is_begun(folder: Path) -> bool:
    """Return whether an unfinished dataset is in `folder`."""
    return (folder / JOB_FOLDER / PLAN).exists()


def is_dataset(folder: Path) -> bool:
    """Return whether a dataset is in `folder`, finished or not."""
    return is_begun(folder) or (folder / MANIFEST).exists()


def finished_in(folder: Path) -> Manifest | None:
    """Return the manifest of a finished dataset; None for anything else."""
    return read_manifest(folder) if not is_begun(folder) and (folder / MANIFEST).exists() else None


def identity_in(folder: Path) -> dict[str, Any] | None:
    """Return options and source of the dataset in `folder`, unfinished or finished; None when there is none."""
    plan = read_json(folder / JOB_FOLDER / PLAN)
    if plan is not None:
        return {"options": plan["options"], "source": plan["source"]}
    manifest = finished_in(folder)
    return None if manifest is None else {"options": manifest.options, "source": manifest.source}


def changes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what is different between two identities, for people; empty when nothing is."""
    changed = differences(found["options"], wanted["options"])
    if found["source"]["fingerprint"] != wanted["source"]["fingerprint"]:
        changed.append("source: its list of images has changed")
    return changed
