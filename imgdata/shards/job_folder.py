"""An output folder -> what stands in it (nothing, a job, a finished dataset), and the right to write to it.

While a dataset is not finished, its job folder `.imgdata/` holds

    lock            locked by the one run that writes, and by the workers it started
    plan.json       options, source and cuts of the job; the folder is unfinished as long as this stands
    SHARD.record    what a finished shard is
    closing-gaps    every shard is written, and some may have been renumbered
    images.spool    images that were copied out of Parquet
    *.tmp           files that are being written
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imgdata.dataset.manifest import MANIFEST, Manifest, read_manifest
from imgdata.errors import OutputError
from imgdata.shards.options import differences
from imgdata.shards.plan import Plan, shard_file
from imgdata.shards.sidecars import TIMM_INFO, dali_index_path
from imgdata.storage.atomic import JOB_FOLDER, output_error, write_atomic
from imgdata.storage.locks import LockHeldError, locked

REJECTS = "rejects.jsonl"
REPAIRS = "repairs.jsonl"
_SIDECARS = (MANIFEST, TIMM_INFO, "croissant.json", "README.md", REJECTS, REPAIRS)
_LOCK, _PLAN, _GAPS, _SPOOL = "lock", "plan.json", "closing-gaps", "images.spool"
_WAIT_S = 3.0
"""How long a run waits for the lock: workers of a run that was killed end, and let go of it, within a second."""


class JobFolder:
    """The job folder of `out`, owned by this process."""

    def __init__(self, out: Path, lock: int) -> None:
        self.out = out
        self.path = out / JOB_FOLDER
        self.lock = lock
        """Descriptor of the locked file; a worker process that inherits it holds the lock as well."""

    @property
    def spool(self) -> Path:
        """Where images are copied to, out of containers that can only be read forward."""
        return self.path / _SPOOL

    @property
    def closing_gaps(self) -> bool:
        """Whether every shard is written, though perhaps not under the name of its record any more."""
        return (self.path / _GAPS).exists()

    def mark_closing_gaps(self) -> None:
        """Say so before the first shard is renamed."""
        write_atomic(self.path / _GAPS, b"")

    def is_finished(self, identity: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Whether the very dataset `identity` stands here finished.

        Raises `OutputError` when something else stands here: another dataset, unless it may be overwritten, or
        files that imgdata did not write.
        """
        plan = _read_json(self.path / _PLAN)
        if plan is not None and "discard" in plan:
            # An overwrite that was cut off: what it was to remove is not whole any more.
            self._discard(plan["discard"])
            return False
        manifest = read_manifest(self.out) if plan is None and (self.out / MANIFEST).exists() else None
        if plan is None and manifest is None:
            if any(entry.name != JOB_FOLDER for entry in self.out.iterdir()):
                raise OutputError(f"{self.out}: not empty, and not made by imgdata; choose an empty or a new folder")
            return False
        if manifest is not None and manifest.source.get("kind") == "index":
            raise OutputError(
                f"{self.out}: holds tars that `imgdata index` found here, which are not replaced; choose another folder"
            )
        if manifest is not None:
            state, options, source, files = "made", manifest.options, manifest.source, _files(manifest)
        else:
            assert plan is not None
            state, options, source, files = "begun", plan["options"], plan["source"], _planned_files(plan)
        if overwrite:
            self._discard(files)
            return False
        changed = differences(options, identity["options"])
        if source["fingerprint"] != identity["source"]["fingerprint"]:
            changed.append("source: its list of images has changed")
        if changed:
            raise OutputError(
                f"{self.out}: was {state} with other options or another source "
                f"({'; '.join(changed)}); use the same, another folder, or --overwrite to start afresh"
            )
        return manifest is not None

    def begin(self, identity: Mapping[str, Any], plan: Plan) -> None:
        """Write `plan.json`, or go on with the one that stands, whose cuts must be the same. Raises `OutputError`."""
        begun = _read_json(self.path / _PLAN)
        if begun is not None and "discard" not in begun:
            if begun["cuts"] != plan.cuts():
                raise OutputError(
                    f"{self.out}: begun where images get other sizes in bytes (another Pillow or imgdata?), so its "
                    "finished shards do not fit; go on there, or use --overwrite to start afresh"
                )
            return
        values = {
            **identity,
            "cuts": plan.cuts(),
            "name": plan.name,
            "shards": {split.name: len(split.start_K) for split in plan.splits},
        }
        write_atomic(self.path / _PLAN, json.dumps(values, indent=2).encode())

    def end(self) -> None:
        """The dataset is finished: what remains of the job is refuse."""
        (self.path / _PLAN).unlink()

    def sweep(self) -> None:
        """Remove half-written files, of a killed run or of the killed workers of this one."""
        for leftover in self.path.glob("*.tmp"):
            leftover.unlink()

    def clear(self) -> None:
        """Take the job folder away, unless a job is unfinished in it. Call while the lock is held."""
        self.sweep()
        if (self.path / _PLAN).exists():
            return
        for path in self.path.iterdir():
            if path.name != _LOCK:
                path.unlink()
        (self.path / _LOCK).unlink()
        # A run that waits has put a lock of its own there: the folder is then that run's.
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _discard(self, files: list[str]) -> None:
        """Remove the files of a dataset, and nothing else, such that any next run completes it."""
        write_atomic(self.path / _PLAN, json.dumps({"discard": files}).encode())
        for path in self.path.iterdir():
            if path.name not in (_LOCK, _PLAN):
                path.unlink()
        for name in files:
            (self.out / name).unlink(missing_ok=True)


@contextlib.contextmanager
def own(out: Path) -> Iterator[JobFolder]:
    """Own the output folder for the block; what an unsuccessful start created is taken away again.

    Raises `OutputError` when `out` can't be written or another run is writing to it.
    """
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(locked(out / JOB_FOLDER / _LOCK, wait_s=_WAIT_S))
        except LockHeldError:
            raise OutputError(f"{out}: another imgdata run is writing here; wait until it ends, or end it") from None
        except OSError as error:
            raise output_error(error, out) from error
        job = JobFolder(out, descriptor)
        job.sweep()
        try:
            yield job
        finally:
            job.clear()
            for folder in missing:
                # Folders that hold something by now stay.
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _read_json(path: Path) -> dict[str, Any] | None:
    """The plan at `path`; None when there is none."""
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OutputError(f"{path}: damaged; delete the folder {path.parent.parent} and start again") from error
    return dict(values)


def _planned_files(plan: Mapping[str, Any]) -> list[str]:
    shards = [shard_file(plan["name"], split, n) for split, count in plan["shards"].items() for n in range(count)]
    return _all_files(plan["name"], list(plan["shards"]), shards)


def _files(manifest: Manifest) -> list[str]:
    shards = [shard.file for split in manifest.splits for shard in split.shards]
    return _all_files(manifest.name, [split.name for split in manifest.splits], shards)


def _all_files(name: str, splits: list[str], shards: list[str]) -> list[str]:
    """Every file of a dataset, the manifest first: without it the folder claims to hold nothing."""
    return [
        *_SIDECARS,
        *(f"{name}-{split}{suffix}" for split in splits for suffix in (".index.parquet", ".wids.json")),
        *(file for tar in shards for file in (tar, dali_index_path(Path(tar)).name)),
    ]
