"""An output folder -> how much of the dataset that is being written there is finished."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.shards.dataset_files import planned_shards
from imgdata.shards.part_files import attempts, read_cut
from imgdata.shards.part_numbers import array_text
from imgdata.shards.record import job_folder
from imgdata.shards.standing import NEXT, PLAN, is_begun, read_json
from imgdata.storage.local_paths import local_path


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What is there of a dataset that is not finished."""

    shards: int
    """Shards of the plan."""
    written: int
    """Shards that are finished."""
    running: int
    """Processes that write parts, or were killed in it."""
    parts: int | None
    """Number of parts, where parts have run."""
    missing: str
    """Parts with shards that are missing, as Slurm's `--array` takes them; empty where no part has run."""

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {"unfinished": True, **dataclasses.asdict(self)}


def unfinished(out: str | Path) -> Unfinished | None:
    """Return how much is there of the dataset that is being written to `out`; None where nothing is being written."""
    out = local_path(out, "DATASET")
    folder = next((folder for folder in (job_folder(out) / NEXT, out) if is_begun(folder)), None)
    plan = None if folder is None else read_json(job_folder(folder) / PLAN)
    if folder is None or plan is None or "shards" not in plan:
        return None
    files = planned_shards(plan)
    there = {name for name in os.listdir(job_folder(folder)) if name.endswith(".record")}
    missing = [number for number, file in enumerate(files) if f"{file}.record" not in there]
    cut = read_cut(folder)
    return Unfinished(
        shards=len(files),
        written=len(files) - len(missing),
        running=len(attempts(folder)),
        parts=None if cut is None else cut.parts,
        missing="" if cut is None else array_text(cut.part_of(number) for number in missing),
    )
