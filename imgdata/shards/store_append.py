"""A dataset in an object store -> its next version: new shards are uploaded beside it, and `dataset.json` is replaced.

The work folder gets what an append reads of the dataset: `dataset.json`, the newest indices and columns, the README.
There the append is one as any (`append`, `merge`), with hulls of tars (`shard_uploads`). In the store lie meanwhile

    .imgdata/plan.json      that an append is being written, and by which machine: see `store_mark`
    .imgdata/append/        its shards

The mark comes before `dataset.json` is read, so that of two appends one is refused. Then: shards get names behind the
others  ->  indices, columns and lists of the new version  ->  `dataset.json`, where it is the one that was read  ->
sidecars that have one name for all versions  ->  the mark is removed. Nothing that an earlier version reads is changed.
"""

import contextlib
import dataclasses
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imgdata.dataset.columns import columns_file
from imgdata.dataset.index import Index
from imgdata.dataset.manifest import MANIFEST, Manifest, parse_manifest, read_manifest
from imgdata.errors import OptionError, OutputError, ShardError, SourceError
from imgdata.shards.append import Growth, plan_growth
from imgdata.shards.begun import identity_of
from imgdata.shards.card import CARD
from imgdata.shards.dataset_files import files_of
from imgdata.shards.job_folder import JobFolder, own
from imgdata.shards.merge import complete_append
from imgdata.shards.options import ShardOptions
from imgdata.shards.plan import shard_file
from imgdata.shards.record import read_rows
from imgdata.shards.shard_uploads import ShardUploads, write_hull
from imgdata.shards.sidecars import dali_index_path, sidecar_files
from imgdata.shards.standing import APPEND, changes, is_begun, read_json, to_json
from imgdata.shards.store_mark import MARK, delete_all, knows_conditions, put_new, read_mark, store_at
from imgdata.shards.store_parts import Uploaded, upload_folder
from imgdata.shards.summary import ShardSummary, Watcher, manifest_summary
from imgdata.sources.listing import Listing
from imgdata.storage.atomic import JOB_FOLDER, output_error, write_atomic
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import RemoteConflictError, RemoteMissingError, RemoteStore
from imgdata.storage.remote_client import RemoteFacts

_PREFIX = f"{JOB_FOLDER}/{APPEND}/"
_BASE = "base.json"
"""File in the work folder: the ETag of the `dataset.json` that it was made of."""


@contextlib.contextmanager
def appending(
    url: str | os.PathLike[str], work: str | os.PathLike[str] | None, *, watch: Watcher
) -> Iterator["StoreAppend"]:
    """Own the work folder of an append for the block, once the store can be read and written.

    Raises `OptionError`, `OutputError` and `ShardError`, which name the URL where they would name the work folder.
    """
    store = store_at(url)
    watch.stage("checking the object store")
    _read_base(store)
    conditions = knows_conditions(store)
    if not conditions:
        watch.retried(f"{store.url}: this server has no conditional writes: let no other program write there meanwhile")
    folder = upload_folder(store.url, work)
    with own(folder / UrlPath(store.url).name) as job, _named(job.out, store.url):
        append = StoreAppend(store, job, folder, conditions=conditions, watch=watch)
        yield append
    if append.ended:
        shutil.rmtree(folder, ignore_errors=True)


def growth_at(url: str | os.PathLike[str], listing: Listing, options: ShardOptions) -> Growth:
    """Return what appending `listing` to the dataset at `url` means. Raises as `plan_growth` does."""
    store = store_at(url)
    data, _ = _read_base(store)
    with tempfile.TemporaryDirectory(prefix="imgdata-") as temporary, _named(Path(temporary), store.url):
        _fetch(store, Path(temporary), data, foreign=True)
        return plan_growth(Path(temporary), listing, options)


class StoreAppend(ShardUploads):
    """An append to a dataset in a store."""

    def __init__(self, store: RemoteStore, job: JobFolder, folder: Path, *, conditions: bool, watch: Watcher) -> None:
        super().__init__(store, job, folder)
        self.whole = job
        """The local copy of the dataset, to which the append is added."""
        self._base_file = folder / _BASE
        self._conditions = conditions
        self._watch = watch
        self._mark: dict[str, Any] = {}
        self._etag = ""
        self._resumed = False
        self._before: Manifest | None = None

    @property
    def prefix(self) -> str:
        """See `ShardUploads`."""
        return _PREFIX

    def kept(self, file: str) -> list[tuple[int, int]]:
        """Return the places of `json` members: the columns of the next version may be read from them."""
        rows = read_rows(self.job.folder, file)
        if "json_offset" not in rows.column_names:
            return []
        return list(zip(rows["json_offset"].to_pylist(), rows["json_size"].to_pylist(), strict=True))

    def begin(self, listing: Listing, options: ShardOptions) -> Growth:
        """Begin or resume the append of `listing`; return what it means. Raises `OptionError`, `OutputError`."""
        mark = {
            **identity_of(listing, options),
            "append": True,
            "host": platform.node(),
            "next": False,
            "name": "",
            "shards": {},
        }
        try:
            put_new(self.store, MARK, to_json(mark))
        except RemoteConflictError:
            mark, self._resumed = self._begun(mark), True
        self._mark = mark
        try:
            return self._plan(listing, options)
        except BaseException:
            if not self._resumed:
                self.store.delete(MARK)
            raise

    def begin_part(self, growth: Growth) -> JobFolder:
        """Return the job of the dataset that is to be added."""
        self.job = self.whole.begin_append(identity_of(growth.listing, growth.options))
        self.job.uploads = True
        return self.job

    def deliver(self, summary: ShardSummary | None = None) -> ShardSummary:
        """Make the dataset's next version of what was written, or finish that; return the summary.

        Can be interrupted at any point and called again. Raises `OutputError`, `ShardError`.
        """
        assert self._before is not None
        self._watch.stage("finishing the upload")
        self._merge()
        folder = self.whole.out
        manifest = read_manifest(folder)
        if manifest.version > self._before.version:
            for name in sorted(_files(manifest) - _files(self._before)):
                if not name.endswith((".tar", ".idx")) and (folder / name).exists():
                    self.store.put(name, folder / name)
            self._compare(manifest)
            self._replace(manifest)
        for name, data in sidecar_files(manifest).items():
            # A README.md that someone edited is not in the list.
            if name in manifest.files and (self._resumed or manifest.version > self._before.version):
                self.store.put(name, data)
        delete_all(self.store, [facts.name for facts in self.store.list(f"{JOB_FOLDER}/") if facts.name != MARK])
        self.store.delete(MARK)
        self.ended = True
        if summary is None:
            return manifest_summary(self.url, manifest, self.lines)
        return dataclasses.replace(summary, out=self.url, version=manifest.version)

    def _begun(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the mark of the append `wanted`, which was begun before. Raises `OutputError` for another mark."""
        found = read_mark(self.store)
        if found is None:
            raise OutputError(f"{self.url}: another run has ended here just now; run the same command again")
        if not found.get("append"):
            raise OutputError(
                f"{self.url}: a dataset is being written here, begun on {found['host']}; append when it is finished"
            )
        if changed := changes(found, wanted):
            raise OutputError(
                f"{self.url}: another append was begun here on {found['host']} ({'; '.join(changed)}); run its command "
                f"again, which ends it, or delete {self.store.place(MARK)} to give it up"
            )
        return found

    def _plan(self, listing: Listing, options: ShardOptions) -> Growth:
        data, facts = _read_base(self.store)
        self._etag = facts.etag
        self._before = parse_manifest(data, self.url / MANIFEST)
        known = read_json(self._base_file)
        if not self._resumed or known is None or known["etag"] != facts.etag or self.lost():
            self._base_file.unlink(missing_ok=True)
            self.empty()
            _fetch(self.store, self.whole.out, data, foreign=not self._resumed)
            _fetch_json(self.store, self.whole.out, self._before)
            write_atomic(self._base_file, to_json({"etag": facts.etag}))
        self._merge()
        return plan_growth(self.whole.out, listing, options)

    def _merge(self) -> None:
        """Put an append that is whole into the local copy of the dataset, once its shards have their names."""
        part = self.whole.append
        if (part / MANIFEST).exists() and not is_begun(part):
            self._name_shards(read_manifest(part))
        complete_append(self.whole)

    def _name_shards(self, added: Manifest) -> None:
        """Give each new shard its name behind those of its split."""
        assert self._before is not None
        names = {}
        for split in added.splits:
            known = sum(len(entry.shards) for entry in self._before.splits if entry.name == split.name)
            files = self.files(f"{added.name}-{split.name}-")
            for place, (file, _) in enumerate(zip(files, split.shards, strict=True)):
                names[file] = shard_file(added.name, split.name, known + place)
        if "adding" not in self._mark:
            self._check_mark()
            adding = [name for tar in names.values() for name in (tar, dali_index_path(Path(tar)).name)]
            self._mark = {**self._mark, "adding": adding}
            self.store.put(MARK, to_json(self._mark))
        moves = [(file, name) for file, name in names.items() if self.entry(file).name != name]

        def move(number: int) -> None:
            file, name = moves[number]
            self._check_mark()
            entry = self.entry(file)
            facts = self.store.copy(entry.name, name)
            self.store.copy(dali_index_path(Path(entry.name)).as_posix(), dali_index_path(Path(name)).name)
            self.note(file, Uploaded(name=name, size=facts.size, etag=facts.etag))

        self.store.in_parallel(move, len(moves))

    def _check_mark(self) -> None:
        """Raise `OutputError` where the append was ended or given up meanwhile."""
        found = read_mark(self.store)
        if found is None or not found.get("append") or changes(found, self._mark):
            raise OutputError(
                f"{self.url}: another run has ended this append meanwhile; the same command says what is there"
            )

    def _compare(self, manifest: Manifest) -> None:
        """Raise `OutputError` where a shard is not in the store as it should be."""
        there = {facts.name: facts.size for facts in self.store.list()}
        for shard in (shard for split in manifest.splits for shard in split.shards):
            if there.get(shard.file) != shard.bytes or dali_index_path(Path(shard.file)).name not in there:
                raise OutputError(
                    f"{self.store.place(shard.file)}: missing, or of another size than it was; `imgdata verify "
                    f"{self.url}` says what is wrong with the dataset"
                )

    def _replace(self, manifest: Manifest) -> None:
        """Replace `dataset.json` where it is the one that was read."""
        data = manifest.to_bytes()
        if not self._conditions:
            self.store.put(MANIFEST, data)
            return
        try:
            self.store.put(MANIFEST, data, if_match=self._etag)
        except RemoteConflictError:
            if self.store.read(MANIFEST) != data:
                raise OutputError(
                    f"{self.url}: another program has replaced {MANIFEST} meanwhile, and this append was not added; "
                    "run the same command again, which appends to what is there now"
                ) from None


def _read_base(store: RemoteStore) -> tuple[bytes, RemoteFacts]:
    """Return `dataset.json` and its facts. Raises `OutputError` where there is none."""
    try:
        return store.fetch(MANIFEST)
    except RemoteMissingError:
        raise OutputError(
            f"{store.url}: no finished dataset to append to; leave out --append to make one there"
        ) from None


def _fetch(store: RemoteStore, folder: Path, data: bytes, *, foreign: bool) -> None:
    """Copy into `folder` what an append reads of the dataset whose `dataset.json` is `data`.

    With `foreign` tars that are not listed in it become empty files, which an append refuses.
    """
    manifest = parse_manifest(data, UrlPath(store.url) / MANIFEST)
    there = {facts.name for facts in store.list()}
    indices = [name for split in manifest.splits for name in split.index_files]
    wanted = [*indices, *(columns_file(split.index) for split in manifest.splits), CARD]
    try:
        for name in (name for name in wanted if name in there):
            with open(folder / name, "wb") as file:
                store.copy_to(file.fileno(), name)
        known = _files(manifest)
        for name in there - known if foreign else ():
            if name.startswith(f"{manifest.name}-") and name.endswith(".tar") and "/" not in name:
                (folder / name).touch()
        # Last: a folder without it is fetched again.
        (folder / MANIFEST).write_bytes(data)
    except OSError as error:
        raise output_error(error, folder) from error


def _fetch_json(store: RemoteStore, folder: Path, manifest: Manifest) -> None:
    """Put hulls with the `json` members into `folder`, of splits that have no file of columns."""
    for split in manifest.splits:
        if not manifest.has_json or split.parts is not None or (folder / columns_file(split.index)).exists():
            continue
        index = Index(folder / split.index)
        if not index.has_json:
            continue
        number_of = {file: number for number, file in enumerate(index.words("shard"))}
        shard_N, offset_N, size_N = (index.array(name) for name in ("shard", "json_offset", "json_size"))
        for shard in split.shards:
            row_K = np.flatnonzero((shard_N == number_of.get(shard.file, -1)) & (size_N > 0))
            ranges = list(zip(offset_N[row_K].tolist(), size_N[row_K].tolist(), strict=True))
            found = store.read_ranges(shard.file, ranges)
            kept = {offset: data for (offset, _), data in zip(ranges, found, strict=True)}
            try:
                write_hull(folder / shard.file, shard.bytes, kept)
            except OSError as error:
                raise output_error(error, folder / shard.file) from error


def _files(manifest: Manifest) -> set[str]:
    """Return the files of a dataset, the parts of its indices too."""
    return {*files_of(manifest), *(name for split in manifest.splits for name in split.index_files)}


@contextlib.contextmanager
def _named(folder: Path, url: str) -> Iterator[None]:
    """Name `url` in errors that name `folder`."""
    try:
        yield
    except (OptionError, OutputError, ShardError, SourceError) as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(str(error).replace(str(folder), url)) from error
