"""A folder of an object store -> the job that writes a dataset there: shards are made here, uploaded, and removed here.

The work folder holds an output folder as any (`job_folder`), with hulls of tars (`shard_uploads`). In the store, while
a dataset is not finished, lie

    .imgdata/plan.json      what is being written, by which machine; the journal of an overwrite: see `store_mark`
    .imgdata/next/          shards that are to replace those of a finished dataset

Objects get their final names whole, `dataset.json` last and on condition that there is none.
"""

import contextlib
import dataclasses
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgdata.dataset.manifest import MANIFEST, Manifest, read_manifest
from imgdata.errors import OutputError
from imgdata.shards.changes import refuse_changed
from imgdata.shards.dataset_files import files_of, planned_files
from imgdata.shards.job_folder import JobFolder, own
from imgdata.shards.shard_uploads import ShardUploads
from imgdata.shards.sidecars import dali_index_path
from imgdata.shards.standing import PLAN, changes, finished_in, identity_in, read_json, to_json
from imgdata.shards.store_mark import (
    MARK,
    NEXT_PREFIX,
    delete_all,
    knows_conditions,
    put_new,
    read_manifest_at,
    read_mark,
    store_at,
)
from imgdata.shards.store_parts import Uploaded, upload_folder
from imgdata.shards.summary import ShardSummary, Watcher, manifest_summary
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import RemoteConflictError, RemoteStore
from imgdata.storage.remote_client import RemoteFacts


@contextlib.contextmanager
def uploading(
    url: str | os.PathLike[str], work: str | os.PathLike[str] | None, *, overwrite: bool, watch: Watcher
) -> Iterator["Upload"]:
    """Own the work folder of an upload for the block, once the store can be read and written.

    `work` holds it, by default the cache folder. Raises `OptionError`, `OutputError` and `ShardError`.
    """
    store = store_at(url)
    watch.stage("checking the object store")
    names = [facts.name for facts in store.list()]
    conditions = knows_conditions(store)
    if not conditions:
        watch.retried(f"{store.url}: this server has no conditional writes: let no other program write there meanwhile")
    folder = upload_folder(store.url, work)
    with own(folder / UrlPath(store.url).name) as job:
        job.uploads = True
        upload = Upload(store, job, folder, names, overwrite=overwrite, conditions=conditions, watch=watch)
        yield upload
    if upload.ended:
        shutil.rmtree(folder, ignore_errors=True)


def standing_at(url: str | os.PathLike[str], identity: Mapping[str, Any]) -> str | None:
    """Return what is at `url` and what a run for the dataset `identity` would do about it; None for nothing."""
    store = store_at(url)
    mark, manifest = read_mark(store), read_manifest_at(store)
    if mark is not None and mark.get("append"):
        return f"exists: an append was begun here on {mark['host']}; a run is refused without --overwrite"
    if mark is not None:
        changed = changes(mark, identity)
        if not changed and "plan_id" in mark:
            return "exists: planned for parts with these options; --part and --finish write it"
        if not changed:
            return f"exists: begun on {mark['host']} with these options, a run resumes it there"
        return f"exists: another dataset was begun ({'; '.join(changed)}); a run is refused without --overwrite"
    if manifest is not None:
        changed = changes({"options": manifest.options, "source": manifest.source}, identity)
        if not changed:
            return "exists: complete already"
        return f"exists: another dataset is there ({'; '.join(changed)}); a run is refused without --overwrite"
    return "exists: not empty, and not made by imgdata; a run is refused" if store.list() else None


class Upload(ShardUploads):
    """A dataset that is being written to a store."""

    def __init__(
        self,
        store: RemoteStore,
        job: JobFolder,
        folder: Path,
        names: Sequence[str],
        *,
        overwrite: bool,
        conditions: bool,
        watch: Watcher,
    ) -> None:
        super().__init__(store, job, folder)
        self.conditions = conditions
        """Whether the server knows conditional writes."""
        self._names = set(names)
        self._overwrite = overwrite
        self._watch = watch
        self._next = False

    @property
    def prefix(self) -> str:
        """See `ShardUploads`."""
        return NEXT_PREFIX if self._next else ""

    @property
    def next_to_old(self) -> bool:
        """Whether shards lie beside a finished dataset that they are to replace."""
        return self._next

    def begin(
        self,
        identity: Mapping[str, Any],
        *,
        parts: bool = False,
        changed_since: Callable[[Manifest], Sequence[str]] = lambda _: (),
    ) -> ShardSummary | None:
        """Begin or resume the dataset `identity`; return the summary where it is complete. Raises `OutputError`.

        Without `parts` a dataset that parts write is another one. `changed_since` returns the names of the images that
        have other bytes in the source than in a finished dataset.
        """
        mark, manifest = read_mark(self.store), read_manifest_at(self.store)
        if mark is not None and mark.get("append"):
            if not self._overwrite:
                raise OutputError(
                    f"{self.url}: an append was begun here on {mark['host']}; run its command again, which ends it, or "
                    "give --overwrite"
                )
            self._discard(mark, manifest)
            mark = None
        made = {} if manifest is None else {"options": manifest.options, "source": manifest.source}
        if mark is not None:
            changed = changes(mark, identity)
            others = "plan_id" in mark and not parts and (manifest is None or bool(changes(made, identity)))
            if changed or others:
                if not self._overwrite:
                    raise self._another(changed, f"begun on {mark['host']}") if changed else self._planned()
                self._discard(mark, manifest)
                mark = None
        if manifest is not None:
            changed = changes(made, identity)
            names = changed_since(manifest) if not changed else ()
            if not self._overwrite:
                refuse_changed(self.url, names, state="made")
            if not changed and not names and manifest.source.get("kind") != "index":
                self._clean(mark, manifest)
                self.ended = True
                return manifest_summary(self.url, manifest, self.lines)
            if manifest.source.get("kind") == "index":
                raise OutputError(f"{self.url}: holds tars that `imgdata index` found; choose another place")
            if not self._overwrite:
                raise self._another(changed, "made")
        elif mark is None and (other := sorted(name for name in self._names if not name.startswith(f"{JOB_FOLDER}/"))):
            raise OutputError(f"{self.url}: not empty ({other[0]}), and not made by imgdata; choose another place")
        self._next = manifest is not None if mark is None else bool(mark["next"])
        here = identity_in(self.job.out)
        if mark is None or (here is not None and changes(here, identity)) or not self._holds():
            self.empty()
        return None

    def mark(self) -> None:
        """Note in the store what is being written. Raises `OutputError` where another machine writes something else."""
        plan = self.values()
        try:
            put_new(self.store, MARK, to_json(plan))
        except RemoteConflictError:
            found = read_mark(self.store)
            if found is not None and changes(found, plan):
                raise self._another(changes(found, plan), f"begun on {found['host']}") from None
            if found is not None and "plan_id" in found:
                raise self._planned() from None

    def values(self) -> dict[str, Any]:
        """Return what the store is to be told of what is being written here."""
        plan = read_json(self.job.path / PLAN)
        assert plan is not None, "what is uploaded has a plan"
        return {**plan, "next": self._next, "host": platform.node()}

    def deliver(self, summary: ShardSummary) -> ShardSummary:
        """Give all shards their final names, put the sidecars beside them, and `dataset.json` last.

        Can be interrupted at any point and called again. Raises `OutputError`, `ShardError`.
        """
        self._watch.stage("finishing the upload")
        manifest = read_manifest(self.job.folder)
        new = set(files_of(manifest))
        if self._next:
            self._remove_old(new)
        strays = self._rename(manifest)
        for path in sorted(self.job.folder.iterdir()):
            if path.is_file() and path.suffix not in (".tar", ".idx") and path.name != MANIFEST:
                self.store.put(path.name, path)
        self._compare(manifest)
        data = manifest.to_bytes()
        try:
            put_new(self.store, MANIFEST, data)
        except RemoteConflictError:
            if self.store.read(MANIFEST) != data:
                raise OutputError(
                    f"{self.url}: another program has put a dataset here meanwhile; nothing of it was replaced: "
                    "choose another place, or use --overwrite"
                ) from None
        for name in strays - new:
            self.store.delete(name)
        self._clean(None, manifest)
        self.ended = True
        return dataclasses.replace(summary, out=self.url)

    def _rename(self, manifest: Manifest) -> set[str]:
        """Give each shard the name that it has in the manifest; return the names that shards had before."""
        before, moves = set(), []
        for split in manifest.splits:
            stem = f"{manifest.name}-{split.name}-"
            # In the order of their numbers, as when gaps were closed: each name is free by then.
            for file, shard in zip(self.files(stem), split.shards, strict=True):
                before |= {file, dali_index_path(Path(file)).name}
                if self.entry(file).name != shard.file:
                    moves.append((file, shard.file))
        if self._next:
            # Each name is free, or was of the old dataset.
            self.store.in_parallel(lambda number: self._move(*moves[number]), len(moves))
        else:
            for move in moves:
                self._move(*move)
        return before

    def _move(self, file: str, to: str) -> None:
        """Give the shard that was written as `file` the name `to`."""
        entry = self.entry(file)
        facts = self._copy(entry, to)
        index = dali_index_path(self.job.folder / to)
        if index.exists():
            self.store.put(index.name, index.read_bytes())
        else:
            self.store.copy(dali_index_path(Path(entry.name)).as_posix(), index.name)
        self.note(file, Uploaded(name=to, size=facts.size, etag=facts.etag))

    def _copy(self, entry: Uploaded, to: str) -> RemoteFacts:
        """Give the object of a shard the name `to`. Raises `OutputError` where another run does so as well."""
        facts = self.store.copy(entry.name, to)
        if not entry.name.startswith(NEXT_PREFIX) and not entry.is_it(self.store.head(entry.name)):
            raise OutputError(
                f"{self.url}: another run finishes the dataset here at the same time; wait until it ends, then run the "
                "same command again"
            )
        return facts

    def _compare(self, manifest: Manifest) -> None:
        """Raise `OutputError` where a shard is not in the store as it was uploaded."""
        there = {facts.name: facts for facts in self.store.list()}
        uploaded = {entry.name: entry for entry in map(self.entry, self.files())}
        for split in manifest.splits:
            for shard in split.shards:
                entry = uploaded[shard.file]
                index = dali_index_path(Path(shard.file)).name
                if entry.size != shard.bytes or not entry.is_it(there.get(shard.file)) or index not in there:
                    raise OutputError(
                        f"{self.store.place(shard.file)}: was uploaded, and is missing or another one now; let "
                        "nothing else write there, and run the same command again"
                    )

    def _remove_old(self, new: set[str]) -> None:
        """Remove the dataset that is replaced, but for what is written again under the same name."""
        mark = read_mark(self.store) or {}
        old = mark.get("old")
        if old is None:
            manifest = read_manifest_at(self.store)
            old = [] if manifest is None else files_of(manifest)
            self.store.put(MARK, to_json({**mark, "old": old}))
        # The manifest goes first: none ever describes a mix of old and new files.
        self.store.delete(MANIFEST)
        there = {facts.name for facts in self.store.list()}
        for name in sorted((set(old) - new) & there):
            self.store.delete(name)

    def _discard(self, mark: Mapping[str, Any], manifest: Manifest | None) -> None:
        """Remove the unfinished dataset of a mark."""
        if "plan_id" in mark:
            # Its parts end now: what they write later they remove.
            self.store.put(MARK, to_json({**mark, "closing": True}))
        doomed = {name for name in self._names if name.startswith(f"{JOB_FOLDER}/")} - {MARK}
        if manifest is None:
            doomed |= self._names & {*planned_files(mark), *mark.get("old", ())}
        elif "adding" in mark:
            doomed |= self._names & set(mark["adding"]) - set(files_of(manifest))
        delete_all(self.store, sorted(doomed))
        self._names -= doomed
        self.store.delete(MARK)

    def _clean(self, mark: Mapping[str, Any] | None, manifest: Manifest) -> None:
        """Remove what is not of the finished dataset: its journal, and names that shards had before."""
        strays = set() if mark is None else set(planned_files(mark)) - set(files_of(manifest))
        there = {facts.name for facts in self.store.list(f"{JOB_FOLDER}/")}
        delete_all(self.store, sorted(strays & self._names) + sorted(there - {MARK}))
        if MARK in there:
            self.store.delete(MARK)

    def _holds(self) -> bool:
        """Return whether all shards that were uploaded are in the store still; forget those that are not."""
        lost = self.lost()
        if lost and (self.job.closing_gaps or finished_in(self.job.out) is not None):
            return False
        for file in lost:
            self.forget(file)
            (self.job.folder / file).unlink(missing_ok=True)
        return True

    def _planned(self) -> OutputError:
        return OutputError(
            f"{self.url}: planned for parts; write them with --part and --finish, or give --overwrite to start afresh"
        )

    def _another(self, changed: Sequence[str], state: str) -> OutputError:
        return OutputError(
            f"{self.url}: was {state} with other options or another source ({'; '.join(changed)}); use the same, "
            "another place, or --overwrite to replace it"
        )
