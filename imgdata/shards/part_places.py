"""A folder, or a URL -> the place where machines write shards of a frozen plan, and what is finished of it."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from imgdata.dataset.manifest import MANIFEST
from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.frozen import FrozenPlan, open_frozen
from imgdata.shards.job_folder import JobFolder, join
from imgdata.shards.part_files import are_open, attempt, frozen_path, note_cut, publish, read_cut
from imgdata.shards.part_numbers import Cut
from imgdata.shards.planned_shard import check_open, check_plan, not_planned
from imgdata.shards.record import ShardReport, read_record
from imgdata.shards.standing import is_begun
from imgdata.shards.store_mark import read_manifest_at, read_mark, store_at
from imgdata.shards.store_parts import StoreParts, parts_of
from imgdata.shards.summary import Watcher
from imgdata.shards.uploading import UploadingEngine
from imgdata.storage.local_paths import UrlPath, local_path
from imgdata.storage.remote import is_url


class PartsPlace(Protocol):
    """Where shards of one plan are written."""

    @property
    def folder(self) -> str | Path:
        """Folder or URL that whoever writes a single shard is given."""
        ...

    def read_cut(self) -> Cut | None:
        """Return the parts that shards were cut into last; None when no part has run."""
        ...

    def note_cut(self, cut: Cut) -> None:
        """Note into which parts the shards are cut."""
        ...

    def written(self, frozen: FrozenPlan, numbers: Iterable[int]) -> dict[int, ShardReport]:
        """Return the reports of the shards at the positions `numbers` that are finished, by position."""
        ...

    def write(
        self, frozen: FrozenPlan, numbers: Sequence[int], *, samples: int, workers: int, watch: Watcher
    ) -> dict[int, ShardReport]:
        """Write the shards at the positions `numbers` and return their reports.

        Raises `ClosedError` where the job ends meanwhile, and as `shard` does.
        """
        ...


class FolderPlace:
    """See `PartsPlace`: a folder that all machines share."""

    def __init__(self, job: JobFolder) -> None:
        self._job = job

    @property
    def folder(self) -> Path:
        """See `PartsPlace`."""
        return self._job.folder

    def read_cut(self) -> Cut | None:
        """See `PartsPlace`."""
        return read_cut(self.folder)

    def note_cut(self, cut: Cut) -> None:
        """See `PartsPlace`."""
        note_cut(self.folder, cut)

    def written(self, frozen: FrozenPlan, numbers: Iterable[int]) -> dict[int, ShardReport]:
        """See `PartsPlace`."""
        return written(self.folder, frozen, numbers)

    def write(
        self, frozen: FrozenPlan, numbers: Sequence[int], *, samples: int, workers: int, watch: Watcher
    ) -> dict[int, ShardReport]:
        """See `PartsPlace`."""
        position = {frozen.files[number]: number for number in numbers}
        reports = {}
        with attempt(self.folder, frozen.facts.plan_id) as place:
            tasks = (frozen.task(number, place) for number in numbers)
            with LocalEngine(workers=workers, samples=samples, lock=self._job.lock) as running:
                for report in running.run(tasks, len(numbers), watch.advanced):
                    publish(place, self.folder, report)
                    reports[position[report.file]] = report
        return reports


class StorePlace:
    """See `PartsPlace`: a folder of an object store; shards are made in the folder `work` of this machine."""

    def __init__(self, parts: StoreParts, work: str | os.PathLike[str] | None) -> None:
        self._parts = parts
        self._work = work

    @property
    def folder(self) -> str:
        """See `PartsPlace`."""
        return self._parts.store.url

    def read_cut(self) -> Cut | None:
        """See `PartsPlace`."""
        return self._parts.read_cut()

    def note_cut(self, cut: Cut) -> None:
        """See `PartsPlace`."""
        self._parts.note_cut(cut)

    def written(self, frozen: FrozenPlan, numbers: Iterable[int]) -> dict[int, ShardReport]:
        """See `PartsPlace`."""
        position = {frozen.files[number]: number for number in numbers}
        return {position[file]: report for file, report in self._parts.finished(position).items()}

    def write(
        self, frozen: FrozenPlan, numbers: Sequence[int], *, samples: int, workers: int, watch: Watcher
    ) -> dict[int, ShardReport]:
        """See `PartsPlace`."""
        position = {frozen.files[number]: number for number in numbers}
        reports: dict[int, ShardReport] = {}
        with self._parts.attempt(self._work) as place:
            tasks = (frozen.task(number, place) for number in numbers)
            uploads = _PartUploads(self._parts, place)
            with UploadingEngine(LocalEngine(workers=workers, samples=samples), uploads) as running:
                for report in running.run(tasks, len(numbers), watch.advanced):
                    if not report.samples:
                        self._parts.publish(place, report)
                    reports[position[report.file]] = report
        return reports


class _PartUploads:
    """Where a part uploads its shards to; see `uploading`."""

    def __init__(self, parts: StoreParts, place: Path) -> None:
        self._parts = parts
        self._place = place

    def mark(self) -> None:
        """Note nothing: the plan is there."""

    def forget(self, file: str) -> None:
        """Forget nothing: what is written had no record."""

    def waiting(self) -> list[str]:
        """Return nothing: the folder was new."""
        return []

    def send(self, file: str) -> None:
        """Upload a shard, and its record."""
        report = read_record(self._place, file)
        assert report is not None, f"{file}: was handed over without a record"
        self._parts.publish(self._place, report)

    def sent(self, file: str, uploaded: None) -> None:
        """Remove a shard here."""
        (self._place / file).unlink(missing_ok=True)


@contextlib.contextmanager
def planned_in(
    out: str | os.PathLike[str], work: str | os.PathLike[str] | None
) -> Iterator[tuple[PartsPlace, FrozenPlan] | None]:
    """Yield the place where parts are to be written, and their plan; None where the dataset is complete.

    Where locks work, nobody owns a folder meanwhile. Raises `OutputError` where there is no plan, or none that can be
    written here.
    """
    if is_url(out):
        yield _planned_at(out, work)
        return
    with join(local_path(out, "OUT")) as job:
        frozen = _planned(job)
        yield None if frozen is None else (FolderPlace(job), frozen)


def _planned_at(
    out: str | os.PathLike[str], work: str | os.PathLike[str] | None
) -> tuple[PartsPlace, FrozenPlan] | None:
    store = store_at(out)
    url = UrlPath(store.url)
    mark = read_mark(store)
    parts = None if mark is None else parts_of(url, mark)
    if mark is None or parts is None:
        if mark is None and read_manifest_at(store) is not None:
            return None
        raise not_planned(url, begun=mark is not None)
    frozen = parts.frozen()
    check_plan(url, frozen.facts)
    check_open(url, is_open=not mark.get("closing"))
    return StorePlace(parts, work), frozen


def _planned(job: JobFolder) -> FrozenPlan | None:
    out = job.out
    for folder in (job.beside, out):
        frozen = open_frozen(frozen_path(folder))
        if frozen is not None:
            job.folder = folder
            check_plan(out, frozen.facts)
            check_open(out, is_open=are_open(folder, frozen.facts.plan_id))
            return frozen
    begun = is_begun(job.beside) or is_begun(out)
    if not begun and (out / MANIFEST).exists():
        return None
    raise not_planned(out, begun=begun)


def frozen_in(out: str | os.PathLike[str]) -> FrozenPlan | None:
    """Return the plan that is frozen in `out`; None where there is none. Raises `OutputError` for a damaged one."""
    if is_url(out):
        store = store_at(out)
        mark = read_mark(store)
        parts = None if mark is None else parts_of(UrlPath(store.url), mark)
        return None if parts is None else parts.frozen()
    job = JobFolder(local_path(out, "OUT"), -1)
    plans = (open_frozen(frozen_path(folder)) for folder in (job.beside, job.out))
    return next((frozen for frozen in plans if frozen is not None), None)


def written(
    folder: Path, frozen: FrozenPlan, numbers: Iterable[int], *, need_tar: bool = True
) -> dict[int, ShardReport]:
    """Return the reports of the shards at the positions `numbers` that are finished, by position."""
    records = {number: read_record(folder, frozen.files[number], need_tar=need_tar) for number in numbers}
    return {number: report for number, report in records.items() if report is not None}
