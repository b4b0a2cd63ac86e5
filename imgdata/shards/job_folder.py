"""An output folder -> what is in it (nothing, a job, a finished dataset), and the right to write to it.

While a dataset is not finished, its job folder `.imgdata/` holds

    lock            locked by the one run that writes, and by the workers it started
    plan.json       options, source and cuts of the job; the folder is unfinished as long as this file exists
    SHARD.record    report and index rows of a finished shard
    closing-gaps    every shard is written, and some may have been renumbered
    images.spool    images that were copied out of Parquet
    objects.spool   images that were given as Python objects
    plan.arrow      the plan and the listing, frozen for parts that other machines write; `part_files` says what else
    next/           a dataset folder of its own, with a job folder of its own, that is to replace the finished dataset
    swap.json       `next` is complete, and its files are being moved to the place of the old dataset
    append/         a dataset folder of its own, as `next`, that is to be put behind the finished dataset (see `merge`)
    *.tmp           files that are being written

The journal is the set of these names; each step is one atomic rename or removal, so a crash leaves the state before
the step or the state after it, and the next run resumes from either.

Overwriting a finished dataset:

    write `next`  ->  `next` has dataset.json  ->  swap.json  ->  old dataset.json removed  ->  other old files removed
    ->  new files moved in, dataset.json last  ->  swap.json removed

Until swap.json exists the old dataset is untouched and can be read; from then on the new one is complete, and every run
finishes the swap before it does anything else. At every moment one of the two datasets is complete.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from imgdata.dataset.manifest import MANIFEST, read_manifest
from imgdata.errors import OutputError, SourceError
from imgdata.shards.dataset_files import files_of, planned_files
from imgdata.shards.part_files import close_parts
from imgdata.shards.plan import Plan
from imgdata.shards.source_states import read_states, write_states
from imgdata.shards.standing import (
    APPEND,
    NEXT,
    PLAN,
    changes,
    finished_in,
    identity_in,
    is_dataset,
    read_json,
    to_json,
)
from imgdata.storage.atomic import JOB_FOLDER, output_error, sync_folder, write_atomic
from imgdata.storage.locks import LockHeldError, locked

_LOCK, _GAPS, _SPOOL, _SWAP = "lock", "closing-gaps", "images.spool", "swap.json"
_OBJECTS = "objects.spool"
_WAIT_S = 3.0
"""Seconds that a run waits for the lock: workers of a killed run end, and release the lock, within a second."""

Standing = Literal["empty", "begun", "complete"]
"""State in the folder of the dataset that is to be written."""


class JobFolder:
    """The job folder of `out`, owned by this process."""

    def __init__(self, out: Path, lock: int) -> None:
        self.out = out
        """The folder that the user named."""
        self.folder = out
        """Where the dataset is written: `out`, or the folder `next` inside it while an old dataset is there."""
        self.lock = lock
        """Descriptor of the locked file; a worker process that inherits it holds the lock as well."""
        self.uploads = False
        """Whether shards leave this machine as soon as they are finished."""

    @property
    def path(self) -> Path:
        """The job folder of the dataset that is being written."""
        return self.folder / JOB_FOLDER

    @property
    def beside(self) -> Path:
        """The folder of a dataset that is to replace a finished one."""
        return self.out / JOB_FOLDER / NEXT

    @property
    def spool(self) -> Path:
        """File with copies of images from containers that can only be read forward."""
        return self.path / _SPOOL

    @property
    def objects(self) -> Path:
        """File with copies of the images that were given as Python objects."""
        return self.out / JOB_FOLDER / _OBJECTS

    @property
    def closing_gaps(self) -> bool:
        """Whether every shard is written, though perhaps no longer under the name in its record."""
        return (self.path / _GAPS).exists()

    @property
    def state(self) -> str | None:
        """State of the source's files that the dataset here, begun or complete, was made of; None when not known."""
        plan = read_json(self.path / PLAN)
        if plan is not None:
            return plan.get("state")
        return read_states(self.folder / MANIFEST).get(1)

    @property
    def append(self) -> Path:
        """Folder of a dataset of its own that is to be put behind the finished one."""
        return self.out / JOB_FOLDER / APPEND

    def begin_append(self, identity: Mapping[str, Any]) -> "JobFolder":
        """Return the job of an append, new or begun. Raises `OutputError` where another one was begun."""
        begun = identity_in(self.append)
        if begun is not None and (changed := changes(begun, identity)):
            raise OutputError(
                f"{self.out}: another append was begun here ({'; '.join(changed)}); run its command again, which ends "
                f"it, or delete the folder {self.append} to give it up"
            )
        (self.append / JOB_FOLDER).mkdir(parents=True, exist_ok=True)
        return JobFolder(self.append, self.lock)

    def remember_state(self, state: str) -> None:
        """Note that the dataset here fits source files in this state."""
        plan = read_json(self.path / PLAN)
        if plan is not None:
            write_atomic(self.path / PLAN, to_json({**plan, "state": state}))
            return
        write_states(self.folder / MANIFEST, {1: state})

    def mark_closing_gaps(self) -> None:
        """Note that shards are about to be renamed; called before the first one is."""
        write_atomic(self.path / _GAPS, b"")

    def find(self, identity: Mapping[str, Any], *, overwrite: bool) -> Standing:
        """Return what is here of the dataset `identity`, after completing what an earlier run left half-done.

        With `overwrite`, another dataset is removed if it is unfinished, and stays until the new one is whole if it is
        finished. Raises `OutputError` for another dataset without `overwrite`, and for files of others.
        """
        # In this order: steps that the journal says were begun, an overwriting job in `next`, the dataset in `out`.
        self._recover()
        beside = self.beside
        if beside.exists():
            begun = identity_in(beside)
            if begun is not None and not changes(begun, identity):
                self.folder = beside
                if finished_in(beside) is None:
                    return "begun"
                # The last run was killed after it finished `next` and before it wrote swap.json.
                self.swap_in()
                return "complete"
            # An overwrite with other options is kept unless this run overwrites too; without a plan it is a leftover.
            if overwrite or begun is None:
                shutil.rmtree(beside)
        if not is_dataset(self.out):
            if any(entry.name != JOB_FOLDER for entry in self.out.iterdir()):
                raise OutputError(f"{self.out}: not empty, and not made by imgdata; choose an empty or a new folder")
            return "empty"
        finished = finished_in(self.out)
        if finished is not None and finished.source.get("kind") == "index":
            raise OutputError(
                f"{self.out}: holds tars that `imgdata index` found here, which are not replaced; choose another folder"
            )
        found = identity_in(self.out)
        assert found is not None
        changed = changes(found, identity)
        if finished is None and not changed:
            return "begun"
        if overwrite:
            self.start_again()
            return "empty"
        if changed:
            state = "begun" if finished is None else "made"
            raise OutputError(
                f"{self.out}: was {state} with other options or another source "
                f"({'; '.join(changed)}); use the same, another folder, or --overwrite to replace it"
            )
        return "complete"

    def resume(self) -> Standing:
        """Return what is here of the dataset that was begun last, with whatever options. Raises `OutputError`."""
        self._recover()
        begun = identity_in(self.beside) or identity_in(self.out)
        return "empty" if begun is None else self.find(begun, overwrite=False)

    def start_again(self) -> None:
        """Make room for a new dataset: beside a finished one, in place of an unfinished one."""
        if finished_in(self.folder) is not None:
            # It was to be put behind the dataset that is replaced.
            shutil.rmtree(self.append, ignore_errors=True)
            self.folder = self.beside
            self.path.mkdir(parents=True)
        else:
            plan = read_json(self.path / PLAN)
            assert plan is not None
            self._discard(planned_files(plan))

    def begin(self, identity: Mapping[str, Any], plan: Plan, state: str) -> None:
        """Write `plan.json`, or resume the one that exists, whose cuts must be the same. Raises `OutputError`."""
        begun = read_json(self.path / PLAN)
        if begun is not None and "discard" not in begun:
            if begun["cuts"] != plan.cuts():
                raise OutputError(
                    f"{self.out}: begun where images get other sizes in bytes (another Pillow or imgdata?), so its "
                    "finished shards do not fit; resume it there, or use --overwrite to start afresh"
                )
            return
        values = {
            **identity,
            "cuts": plan.cuts(),
            "name": plan.name,
            "shards": {split.name: len(split.start_K) for split in plan.splits},
            "state": state,
        }
        write_atomic(self.path / PLAN, to_json(values))

    def end(self) -> None:
        """End the job: the dataset is finished, and nothing else in the job folder is needed."""
        (self.path / PLAN).unlink()
        # To disk, before an append is put into the dataset: with its plan it would be taken for one that is not whole.
        sync_folder(self.path)

    def swap_in(self) -> None:
        """Put the finished dataset of `next` in the place of the old one; does nothing if it was written in place."""
        if self.folder == self.out:
            return
        # Both lists are written down before the first file changes: later, neither manifest need be where it was.
        old = files_of(read_manifest(self.out))
        new = [name for name in files_of(read_manifest(self.folder)) if (self.folder / name).exists()]
        write_atomic(self.out / JOB_FOLDER / _SWAP, to_json({"old": old, "new": new}))
        self._swap(old, new)

    def empty(self) -> None:
        """Remove everything here but images that were given as Python objects."""
        for folder in (self.path, self.out):
            for path in folder.iterdir():
                if path.is_dir() and path != self.path:
                    shutil.rmtree(path)
                elif path != self.path and path.name not in (_LOCK, _OBJECTS):
                    path.unlink()

    def complete_overwrite(self) -> None:
        """Finish an overwrite whose new dataset is whole."""
        self._recover()
        if finished_in(self.beside) is not None:
            self.folder = self.beside
            self.swap_in()

    def sweep(self) -> None:
        """Remove half-written files, of a killed run or of the killed workers of this one."""
        for folder in (self.out, self.beside, self.append):
            for leftover in (folder / JOB_FOLDER).glob("*.tmp"):
                leftover.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the job folder, unless a job is unfinished in it. Call while the lock is held."""
        self.sweep()
        path = self.out / JOB_FOLDER
        if any((path / name).exists() for name in (PLAN, NEXT, _SWAP, APPEND)):
            return
        close_parts(self.out)
        for leftover in path.iterdir():
            if leftover.name != _LOCK:
                leftover.unlink()
        (path / _LOCK).unlink()
        # A waiting run has already created a lock of its own in the folder, which then belongs to that run.
        with contextlib.suppress(OSError):
            path.rmdir()

    def _recover(self) -> None:
        """Finish what a run that was interrupted had begun to remove or to move."""
        swap = read_json(self.out / JOB_FOLDER / _SWAP)
        if swap is not None:
            self._swap(swap["old"], swap["new"])
        plan = read_json(self.out / JOB_FOLDER / PLAN)
        if plan is not None and "discard" in plan:
            self._discard(plan["discard"])
            (self.out / JOB_FOLDER / PLAN).unlink()

    def _swap(self, old: list[str], new: list[str]) -> None:
        """Replace the files `old` by those of `next`; can be interrupted at any point and called again."""
        beside = self.beside
        # The new dataset.json is moved last: once `next` lacks it, the dataset.json in `out` is new, and must stay.
        if (beside / MANIFEST).exists():
            # The old manifest goes first, and to disk: after a crash no manifest describes a mix of old and new files.
            (self.out / MANIFEST).unlink(missing_ok=True)
            sync_folder(self.out)
            for name in set(old) - set(new):
                (self.out / name).unlink(missing_ok=True)
            for name in sorted(new, key=lambda name: name == MANIFEST):
                if name == MANIFEST:
                    # What it describes comes to disk before it: a power cut may lose any of the moves before a sync.
                    sync_folder(self.out)
                # Not found: an interrupted run has moved the file already.
                with contextlib.suppress(FileNotFoundError):
                    os.replace(beside / name, self.out / name)
            sync_folder(self.out)
        shutil.rmtree(beside, ignore_errors=True)
        (self.out / JOB_FOLDER / _SWAP).unlink()
        self.folder = self.out

    def _discard(self, files: list[str]) -> None:
        """Remove the files of an unfinished dataset, and nothing else, such that any next run completes the removal."""
        # The list replaces the plan: from here on the old job can't be resumed, only removed.
        write_atomic(self.path / PLAN, to_json({"discard": files}))
        close_parts(self.folder)
        for path in self.path.iterdir():
            if path.name not in (_LOCK, PLAN, _OBJECTS):
                path.unlink()
        for name in files:
            (self.folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def own(out: Path) -> Iterator[JobFolder]:
    """Own the output folder for the block; what an unsuccessful start created is removed again.

    Raises `OutputError` when `out` can't be written, whatever system call says so, or another run is writing there.
    """
    missing: list[Path] = []
    with contextlib.ExitStack() as stack:
        try:
            missing += [folder for folder in (out / JOB_FOLDER, out, *out.parents) if not folder.exists()]
            stack.callback(_remove_empty, missing)
            descriptor = stack.enter_context(_unlocked_in_silence(out))
        except LockHeldError:
            raise OutputError(f"{out}: another imgdata run is writing here; wait until it ends, or end it") from None
        except OSError as error:
            raise _explained(error, out) from error
        job = JobFolder(out, descriptor)
        try:
            job.sweep()
            yield job
        except OSError as error:
            with contextlib.suppress(OSError):
                job.clear()
            raise _explained(error, out) from error
        except BaseException:
            # What went wrong first is what matters; what is left behind is swept by the next run.
            with contextlib.suppress(OSError):
                job.clear()
            raise
        try:
            job.clear()
        except OSError as error:
            raise _explained(error, out) from error


@contextlib.contextmanager
def _unlocked_in_silence(out: Path, *, shared: bool = False) -> Iterator[int]:
    """Hold the lock; a failure to release it is ignored, since the system releases it when the process ends."""
    lock = locked(out / JOB_FOLDER / _LOCK, wait_s=_WAIT_S, shared=shared)
    descriptor = lock.__enter__()
    try:
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            lock.__exit__(None, None, None)


@contextlib.contextmanager
def join(out: Path) -> Iterator[JobFolder]:
    """Share the output folder with other parts for the block; nobody owns it meanwhile, where locks work.

    Raises `OutputError` when a run owns `out`, or nothing was planned there.
    """
    if not (out / JOB_FOLDER).is_dir():
        yield JobFolder(out, -1)
        return
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(_unlocked_in_silence(out, shared=True))
        except LockHeldError:
            raise OutputError(
                f"{out}: another imgdata run plans, writes or finishes the whole dataset here; wait until it ends"
            ) from None
        except OSError as error:
            raise _explained(error, out) from error
        try:
            yield JobFolder(out, descriptor)
        except OSError as error:
            raise _explained(error, out) from error


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        # Folders that hold something by now stay.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _explained(error: OSError, out: Path) -> OutputError | SourceError:
    """Return the error to raise for an `OSError`, which names a file of the output folder, or a raw file."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else out
    if path.parent == Path() and not path.exists():
        # Of a folder of the output that was being removed: the system names what is in it, and not where it is.
        path = out
    if path == out or out in path.parents or path in out.parents:
        return output_error(error, path)
    return SourceError(f"{path}: can't be read: {error.strerror or error}; the same command resumes once it can be")
