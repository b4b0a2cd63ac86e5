"""An output folder or URL -> how much of the dataset that is being written there is finished."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.dataset.manifest import MANIFEST
from imgdata.shards.dataset_files import planned_shards
from imgdata.shards.part_files import attempts, read_cut
from imgdata.shards.part_numbers import Cut, array_text
from imgdata.shards.record import job_folder
from imgdata.shards.standing import NEXT, PLAN, is_begun, read_json
from imgdata.shards.store_mark import NEXT_PREFIX, read_mark
from imgdata.shards.store_parts import parts_of
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.local_paths import UrlPath, local_path
from imgdata.storage.remote import WEB, RemoteMissingError, RemoteStore, is_url


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What is there of a dataset that is not finished."""

    shards: int
    """Shards of the plan."""
    written: int
    """Shards that are finished."""
    running: int | None
    """Processes that write parts, or were killed in it; None where that isn't known: in an object store."""
    parts: int | None
    """Number of parts, where parts have run."""
    missing: str
    """Parts with shards that are missing, as Slurm's `--array` takes them; empty where no part has run."""

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {"unfinished": True, **dataclasses.asdict(self)}


def unfinished(out: str | Path) -> Unfinished | None:
    """Return how much is there of the dataset that is being written to `out`; None where nothing is being written."""
    if is_url(out):
        return _unfinished_at(out)
    out = local_path(out, "DATASET")
    folder = next((folder for folder in (job_folder(out) / NEXT, out) if is_begun(folder)), None)
    plan = None if folder is None else read_json(job_folder(folder) / PLAN)
    if folder is None or plan is None or "shards" not in plan:
        return None
    names = os.listdir(job_folder(folder))
    there = {name.removesuffix(".record") for name in names if name.endswith(".record")}
    return _counted(planned_shards(plan), there, read_cut(folder), running=len(attempts(folder)))


def _unfinished_at(url: str | os.PathLike[str]) -> Unfinished | None:
    store = RemoteStore(os.fspath(url).removesuffix(MANIFEST))
    with contextlib.suppress(RemoteMissingError):
        store.head(MANIFEST)
        return None
    mark = read_mark(store)
    if mark is None or store.scheme in WEB:
        return None
    parts = parts_of(UrlPath(store.url), mark)
    if parts is None:
        there = {facts.name.removeprefix(NEXT_PREFIX) for facts in store.list()}
        return _counted(planned_shards(mark), there, None, running=None)
    # Who runs is known to the machines that do.
    names = parts.names_in(facts.name for facts in store.list(f"{JOB_FOLDER}/"))
    return _counted(planned_shards(mark), set(names), parts.read_cut(), running=None)


def _counted(files: Sequence[str], there: set[str], cut: Cut | None, *, running: int | None) -> Unfinished:
    missing = [number for number, file in enumerate(files) if file not in there]
    return Unfinished(
        shards=len(files),
        written=len(files) - len(missing),
        running=running,
        parts=None if cut is None else cut.parts,
        missing="" if cut is None else array_text(cut.part_of(number) for number in missing),
    )
