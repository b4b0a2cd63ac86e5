"""A folder of an object store -> what parts of a conversion keep there, so that machines need no other connection.

    .imgdata/plan.json                  which plan is being written, and whether it is being finished: `store_mark`
    .imgdata/plan-ID.arrow              the frozen plan ID; a shard's own rows are read from it, by ranges
    .imgdata/parts-ID/SHARD.record      facts and index rows of a finished shard, and the objects that it has become
    .imgdata/parts-ID/cut.json          the number of parts, and how the scheduler numbers them

A shard is made on the machine of its part, and uploaded under its final name, on condition that there is none: its DALI
index first, its record last, so a record without its tar never counts, nor one whose tar is another now. Where an
object is there already, its bytes are compared: those of another machine that wrote the same shard are the same and
stay, and those of another plan are replaced on condition that nobody else has done so meanwhile. So whoever is late,
on whatever machine, changes nothing: neither of the same plan after its end, nor of the next one.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imgdata.errors import OutputError
from imgdata.shards.dataset_files import files_of, planned_files
from imgdata.shards.frozen import FrozenPlan, open_frozen_at
from imgdata.shards.part_files import ClosedError, own_place
from imgdata.shards.part_numbers import Cut
from imgdata.shards.record import ShardReport, job_folder, parse_record, record_path
from imgdata.shards.sidecars import dali_index_path
from imgdata.shards.store_mark import NEXT_PREFIX, delete_all, read_manifest_at, read_mark, store_at
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.cache_folder import cache_folder
from imgdata.storage.local_paths import UrlPath, local_path
from imgdata.storage.remote import RemoteConflictError, RemoteMissingError, RemoteStore
from imgdata.storage.remote_client import RemoteFacts
from imgdata.storage.remote_file import RemoteFile

_SLOWEST = 1_000_000
"""Bytes per second at which a shard is uploaded at least: it goes by one request, which has a condition."""
_COMPARE_BYTES = 1 << 26
_TRIES = 3
_LIST_FROM = 500
"""Shards from which a list of all objects takes less time than a request for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploaded:
    """An object that a file of a finished shard has become."""

    name: str
    size: int
    etag: str

    def is_it(self, facts: RemoteFacts | None) -> bool:
        """Return whether these are the facts of the object as it was uploaded."""
        # Some lists have no quotes around it.
        return facts is not None and (facts.size, facts.etag.strip('"')) == (self.size, self.etag.strip('"'))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the store has of a shard that a part has finished."""

    report: ShardReport
    tar: Uploaded | None
    """None where every image was bad."""
    index: Uploaded | None
    """DALI's."""

    def is_in(self, there: Mapping[str, RemoteFacts]) -> bool:
        """Return whether the objects `there` have those of the shard, as they were uploaded."""
        return all(one.is_it(there.get(one.name)) for one in self.objects)

    @property
    def objects(self) -> tuple[Uploaded, ...]:
        """Objects of the shard."""
        return tuple(one for one in (self.tar, self.index) if one is not None)


def upload_folder(url: str, work: str | os.PathLike[str] | None) -> Path:
    """Return the folder on this machine for what is uploaded to `url`; `work` holds it, by default the cache folder."""
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return (local_path(work, "work") if work is not None else cache_folder() / "uploads") / key


def plan_name(plan_id: str) -> str:
    """Return the name of the object with a frozen plan."""
    return f"{JOB_FOLDER}/plan-{plan_id}.arrow"


def parts_prefix(plan_id: str) -> str:
    """Return the beginning of the names of what parts of a plan keep."""
    return f"{JOB_FOLDER}/parts-{plan_id}/"


class StoreParts:
    """The shards of one plan, in a store. Safe in threads."""

    def __init__(self, url: str | os.PathLike[str], plan_id: str, *, next_to_old: bool, conditions: bool) -> None:
        self.store = store_at(url)
        self.plan_id = plan_id
        self._prefix = NEXT_PREFIX if next_to_old else ""
        self._records = parts_prefix(plan_id)
        self._conditions = conditions
        self._stores: dict[int, RemoteStore] = {}

    def frozen(self) -> FrozenPlan:
        """Return the plan, whose rows are read when they are asked for. Raises `OutputError`, `ShardError`."""
        name = plan_name(self.plan_id)
        return open_frozen_at(RemoteFile(self.store, self.store.head(name)), self.store.place(name))

    def is_open(self) -> bool:
        """Return whether processes may write shards of the plan."""
        mark = read_mark(self.store)
        return mark is not None and mark.get("plan_id") == self.plan_id and not mark.get("closing")

    def recorded(
        self, files: Iterable[str], keep: Callable[[str, bytes], object] = lambda file, data: None
    ) -> dict[str, Recorded]:
        """Return what is known of those shards `files` that have a record; `keep` gets each name and record."""
        names = list(files)
        found: list[Recorded | None] = [None] * len(names)

        def read(number: int) -> None:
            with contextlib.suppress(RemoteMissingError):
                found[number], data = self._read(names[number])
                keep(names[number], data)

        self.store.in_parallel(read, len(names))
        return {name: one for name, one in zip(names, found, strict=True) if one is not None}

    def finished(self, files: Iterable[str]) -> dict[str, ShardReport]:
        """Return the reports of those shards `files` that are finished, and whose objects are there."""
        files = list(files)
        there: dict[str, RemoteFacts] = {}
        if len(files) > _LIST_FROM:
            there = {facts.name: facts for facts in self.store.list()}
            files = sorted(set(files) & set(self.names_in(there)))
        recorded = self.recorded(files)
        names = [one.name for shard in recorded.values() for one in shard.objects if one.name not in there]

        def look(number: int) -> None:
            with contextlib.suppress(RemoteMissingError):
                there[names[number]] = self.store.head(names[number])

        self.store.in_parallel(look, len(names))
        return {file: one.report for file, one in recorded.items() if one.is_in(there)}

    def names_in(self, there: Iterable[str]) -> list[str]:
        """Return the shards that have a record among the objects `there`."""
        found = [name.removeprefix(self._records) for name in there if name.startswith(self._records)]
        return [name.removesuffix(".record") for name in found if name.endswith(".record")]

    def note_cut(self, cut: Cut) -> None:
        """Note into which parts the shards are cut, for whoever runs some of them again."""
        if self.read_cut() != cut:
            self.store.put(f"{self._records}cut.json", json.dumps(dataclasses.asdict(cut)).encode())

    def read_cut(self) -> Cut | None:
        """Return the parts that shards were cut into last; None when no part has run."""
        try:
            return Cut(**json.loads(self.store.read(f"{self._records}cut.json")))
        except (RemoteMissingError, ValueError, TypeError):
            return None

    @contextlib.contextmanager
    def attempt(self, work: str | os.PathLike[str] | None) -> Iterator[Path]:
        """Make a folder on this machine to write shards in; it is removed afterwards."""
        folder = upload_folder(self.store.url, work)
        # Not in the folder itself, which is removed by whoever plans or finishes.
        with own_place(folder.with_name(f"{folder.name}-parts")) as place:
            job_folder(place).mkdir()
            yield place

    def publish(self, place: Path, report: ShardReport) -> None:
        """Upload the shard of `report` from the folder `place`. Raises `ClosedError` where that came too late."""
        made: list[RemoteFacts] = []
        tar = index = None
        try:
            self._check_open()
            if report.samples:
                path = place / report.file
                index = self._put(dali_index_path(path), made)
                tar = self._put(path, made)
            recorded = Recorded(report=report, tar=tar, index=index)
            made.append(self.keep(recorded, record_path(place, report.file).read_bytes()))
            self._check_open()
        except ClosedError:
            self._remove(made)
            raise

    def keep(self, recorded: Recorded, data: bytes) -> RemoteFacts:
        """Write the record of a shard, whose bytes in a job folder are `data`."""
        named = {"tar": recorded.tar, "index": recorded.index}
        head = {what: None if one is None else dataclasses.asdict(one) for what, one in named.items()}
        name = f"{self._records}{recorded.report.file}.record"
        return self.store.put(name, json.dumps(head).encode() + b"\n" + data)

    def remove(self) -> None:
        """Remove the plan, and what its parts keep but for shards."""
        delete_all(self.store, [facts.name for facts in self.store.list(self._records)])
        self.store.delete(plan_name(self.plan_id))

    def _read(self, file: str) -> tuple[Recorded, bytes]:
        name = f"{self._records}{file}.record"
        head, _, data = self.store.read(name).partition(b"\n")
        place = self.store.place(name)
        try:
            values = json.loads(head)
            tar, index = (values[what] and Uploaded(**values[what]) for what in ("tar", "index"))
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{place}: damaged; delete it, and run the part of this shard again") from error
        return Recorded(report=parse_record(data, place), tar=tar, index=index), data

    def _check_open(self) -> None:
        if not self.is_open():
            raise ClosedError

    def _put(self, path: Path, made: list[RemoteFacts]) -> Uploaded:
        """Write a file of a shard, unless it is there; add it to `made` where nothing was there. Raises `ClosedError`.

        Raises `OutputError` where others keep writing it.
        """
        name = self._prefix + path.name
        if not self._conditions:
            return _uploaded(self.store.put(name, path))
        store = self._patient(path.stat().st_size)
        for _ in range(_TRIES):
            with contextlib.suppress(RemoteConflictError):
                facts = store.put(name, path, only_if_absent=True)
                made.append(facts)
                return _uploaded(facts)
            with contextlib.suppress(RemoteConflictError, RemoteMissingError):
                facts = store.head(name)
                if self._has(facts, path):
                    return _uploaded(facts)
                # In this order: what has replaced the plan since then has replaced the object too, or will.
                self._check_open()
                return _uploaded(store.put(name, path, if_match=facts.etag))
        raise OutputError(f"{store.place(name)}: another program keeps writing here; end it, then run this again")

    def _patient(self, size: int) -> RemoteStore:
        """Return the store, with time for a request of `size` bytes."""
        bits = size.bit_length()
        if bits not in self._stores:
            settings, more_s = self.store.settings, 2**bits / _SLOWEST
            patient = dataclasses.replace(
                settings, stall_s=settings.stall_s + more_s, request_s=settings.request_s + more_s
            )
            self._stores[bits] = RemoteStore(self.store.url, settings=patient)
        return self._stores[bits]

    def _has(self, facts: RemoteFacts, path: Path) -> bool:
        """Return whether an object has the bytes of a file."""
        if facts.size != path.stat().st_size:
            return False
        with open(path, "rb") as file:
            for start in range(0, facts.size, _COMPARE_BYTES):
                if self.store.read(facts.name, start, _COMPARE_BYTES, etag=facts.etag) != file.read(_COMPARE_BYTES):
                    return False
        return True

    def _remove(self, made: Iterable[RemoteFacts]) -> None:
        """Remove objects of this process, now that the plan has ended; those that others took over stay."""
        mark = read_mark(self.store)
        if mark is None:
            manifest = read_manifest_at(self.store)
            kept = set() if manifest is None else set(files_of(manifest))
        elif mark.get("plan_id") == self.plan_id:
            # Who finishes it removes what is too much.
            return
        else:
            kept = {f"{NEXT_PREFIX if mark['next'] else ''}{name}" for name in planned_files(mark)}
        for facts in made:
            if facts.name in kept:
                continue
            with contextlib.suppress(RemoteMissingError):
                if self.store.head(facts.name).etag == facts.etag:
                    self.store.delete(facts.name)


def _uploaded(facts: RemoteFacts) -> Uploaded:
    return Uploaded(name=facts.name, size=facts.size, etag=facts.etag)


def planned_at(url: str | os.PathLike[str]) -> StoreParts | None:
    """Return the plan whose parts are written at `url`; None where there is none."""
    store = store_at(url)
    mark = read_mark(store)
    return None if mark is None else parts_of(UrlPath(store.url), mark)


def parts_of(url: Path, mark: Mapping[str, object]) -> StoreParts | None:
    """Return the plan for parts that a mark names; None where it names none."""
    if "plan_id" not in mark:
        return None
    return StoreParts(
        url, str(mark["plan_id"]), next_to_old=bool(mark["next"]), conditions=bool(mark.get("conditions", True))
    )
