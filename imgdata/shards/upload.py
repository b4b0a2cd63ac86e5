"""A folder of an object store -> the job that writes a dataset there: shards are made here, uploaded, and removed here.

The work folder holds an output folder as any (`job_folder`), in which a tar that was uploaded is a hull: its first
block, and a hole to its old size. So whatever resumes or finishes a dataset does the same for both. Beside it lies

    uploaded/SHARD.json     name, size and ETag of the object that a shard has become

and in the store, while a dataset is not finished,

    .imgdata/plan.json      what is being written, by which machine; the journal of an overwrite
    .imgdata/next/          shards that are to replace those of a finished dataset

Objects get their final names whole, `dataset.json` last and on condition that there is none.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.dataset.manifest import MANIFEST, Manifest, parse_manifest, read_manifest
from imgdata.errors import OptionError, OutputError
from imgdata.shards.dataset_files import files_of, planned_files
from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.job_folder import JobFolder, own
from imgdata.shards.sidecars import dali_index_path
from imgdata.shards.standing import PLAN, changes, finished_in, identity_in, read_json, to_json
from imgdata.shards.summary import ShardSummary, Watcher, manifest_summary
from imgdata.shards.uploading import UploadingEngine
from imgdata.storage.atomic import JOB_FOLDER, output_error, write_atomic
from imgdata.storage.cache_folder import cache_folder
from imgdata.storage.local_paths import UrlPath, local_path, url_scheme
from imgdata.storage.remote import WEB, RemoteConflictError, RemoteMissingError, RemoteStore

_MARK, _NEXT, _PROBE = f"{JOB_FOLDER}/{PLAN}", f"{JOB_FOLDER}/next/", f"{JOB_FOLDER}/probe"
_HEAD_BYTES = 512
"""First block of a tar: the name of its first member, by which a shard is recognised when gaps are closed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploaded:
    """The object that a finished shard has become."""

    name: str
    size: int
    etag: str


@contextlib.contextmanager
def uploading(
    url: str | os.PathLike[str], work: str | os.PathLike[str] | None, *, overwrite: bool, watch: Watcher
) -> Iterator["Upload"]:
    """Own the work folder of an upload for the block, once the store can be read and written.

    `work` holds it, by default the cache folder. Raises `OptionError`, `OutputError` and `ShardError`.
    """
    store = _store(url)
    watch.stage("checking the object store")
    names = [facts.name for facts in store.list()]
    _refuse_unwritable(store, watch)
    key = hashlib.sha256(store.url.encode()).hexdigest()[:16]
    folder = (local_path(work, "work") if work is not None else cache_folder() / "uploads") / key
    with own(folder / UrlPath(store.url).name) as job:
        job.uploads = True
        upload = Upload(store, job, folder, names, overwrite=overwrite, watch=watch)
        yield upload
    if upload.ended:
        shutil.rmtree(folder, ignore_errors=True)


def _store(url: str | os.PathLike[str]) -> RemoteStore:
    """Return the store at `url`. Raises `OptionError` where there can be none to write to."""
    if url_scheme(url) == "file":
        local_path(url, "OUT")
    store = RemoteStore(os.fspath(url))
    if store.scheme in WEB:
        raise OptionError(f"OUT: {store.url}: a web server takes no uploads; give an s3://, gs:// or az:// URL")
    return store


def _refuse_unwritable(store: RemoteStore, watch: Watcher) -> None:
    """Raise `OutputError` where nothing can be written; tell `watch` of a server without conditions."""
    try:
        with contextlib.suppress(RemoteConflictError):
            # By another run, now or killed.
            store.put(_PROBE, b"first", only_if_absent=True)
        store.put(_PROBE, b"second", only_if_absent=True)
        knows = False
    except RemoteConflictError:
        knows = True
    except (OptionError, OutputError):
        store.put(_PROBE, b"without a condition")
        knows = False
    store.delete(_PROBE)
    if not knows:
        watch.retried(f"{store.url}: this server has no conditional writes: let no other program write there meanwhile")


def standing_at(url: str | os.PathLike[str], identity: Mapping[str, Any]) -> str | None:
    """Return what is at `url` and what a run for the dataset `identity` would do about it; None for nothing."""
    store = _store(url)
    mark, manifest = _read_mark(store), _read_manifest(store)
    if mark is not None:
        changed = changes(mark, identity)
        if not changed:
            return f"exists: begun on {mark['host']} with these options, a run resumes it there"
        return f"exists: another dataset was begun ({'; '.join(changed)}); a run is refused without --overwrite"
    if manifest is not None:
        changed = changes({"options": manifest.options, "source": manifest.source}, identity)
        if not changed:
            return "exists: complete already"
        return f"exists: another dataset is there ({'; '.join(changed)}); a run is refused without --overwrite"
    return "exists: not empty, and not made by imgdata; a run is refused" if store.list() else None


def _read_mark(store: RemoteStore) -> dict[str, Any] | None:
    try:
        return dict(json.loads(store.read(_MARK)))
    except RemoteMissingError:
        return None
    except ValueError:
        raise OutputError(f"{store.place(_MARK)}: damaged; remove it, and the unfinished dataset beside it") from None


def _read_manifest(store: RemoteStore) -> Manifest | None:
    try:
        return parse_manifest(store.read(MANIFEST), UrlPath(store.url) / MANIFEST)
    except RemoteMissingError:
        return None


class Upload:
    """A dataset that is being written to a store."""

    def __init__(
        self, store: RemoteStore, job: JobFolder, folder: Path, names: Sequence[str], *, overwrite: bool, watch: Watcher
    ) -> None:
        self.job = job
        """The local output folder."""
        self.ended = False
        """Whether nothing in the work folder is needed any more."""
        self._store = store
        self._ledger = folder / "uploaded"
        self._names = set(names)
        self._overwrite = overwrite
        self._watch = watch
        self._next = False
        self._url = UrlPath(store.url)

    def begin(self, identity: Mapping[str, Any]) -> ShardSummary | None:
        """Begin or resume the dataset `identity`; return the summary where it is complete. Raises `OutputError`."""
        mark, manifest = _read_mark(self._store), _read_manifest(self._store)
        if mark is not None and changes(mark, identity):
            if not self._overwrite:
                raise self._another(changes(mark, identity), f"begun on {mark['host']}")
            self._discard(mark, manifest)
            mark = None
        if manifest is not None:
            changed = changes({"options": manifest.options, "source": manifest.source}, identity)
            if not changed and manifest.source.get("kind") != "index":
                self._clean(mark, manifest)
                self.ended = True
                return manifest_summary(self._url, manifest, self._lines)
            if manifest.source.get("kind") == "index":
                raise OutputError(f"{self._url}: holds tars that `imgdata index` found; choose another place")
            if not self._overwrite:
                raise self._another(changed, "made")
        elif mark is None and (other := sorted(name for name in self._names if not name.startswith(f"{JOB_FOLDER}/"))):
            raise OutputError(f"{self._url}: not empty ({other[0]}), and not made by imgdata; choose another place")
        self._next = manifest is not None if mark is None else bool(mark["next"])
        here = identity_in(self.job.out)
        if mark is None or (here is not None and changes(here, identity)) or not self._holds():
            self._empty()
        return None

    def engine(self, *, workers: int, samples: int, lock: int | None) -> UploadingEngine:
        """Return the engine that writes shards here, and uploads each."""
        return UploadingEngine(LocalEngine(workers=workers, samples=samples, lock=lock), self)

    def mark(self) -> None:
        """Note in the store what is being written. Raises `OutputError` where another machine writes something else."""
        plan = read_json(self.job.path / PLAN)
        if plan is None:
            return
        data = to_json({**plan, "next": self._next, "host": platform.node()})
        try:
            self._put_new(_MARK, data)
        except RemoteConflictError:
            found = _read_mark(self._store)
            if found is not None and changes(found, plan):
                raise self._another(changes(found, plan), f"begun on {found['host']}") from None

    def forget(self, file: str) -> None:
        """Forget that a shard was uploaded: it is about to be written again."""
        self._entry(file).unlink(missing_ok=True)

    def waiting(self) -> list[str]:
        """Return the shards that are finished and were not uploaded."""
        if self.job.closing_gaps:
            return []
        paths = sorted(self.job.folder.glob("*.tar"))
        return [path.name for path in paths if not self._entry(path.name).exists()]

    def send(self, file: str) -> Uploaded:
        """Upload a finished shard and its DALI index. Raises `OutputError`."""
        path = self.job.folder / file
        name = (_NEXT if self._next else "") + file
        facts = self._store.put(name, path)
        self._store.put(dali_index_path(Path(name)).as_posix(), dali_index_path(path).read_bytes())
        return Uploaded(name=name, size=facts.size, etag=facts.etag)

    def sent(self, file: str, uploaded: Uploaded) -> None:
        """Note that a shard was uploaded, and remove it here."""
        self._note(file, uploaded)
        path = self.job.folder / file
        hull = self.job.path / f"{file}.hull.tmp"
        try:
            with open(path, "rb") as tar:
                hull.write_bytes(tar.read(_HEAD_BYTES))
            os.truncate(hull, uploaded.size)
            os.replace(hull, path)
        except OSError as error:
            raise output_error(error, path) from error

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
                self._store.put(path.name, path)
        self._compare(manifest)
        data = manifest.to_bytes()
        try:
            self._put_new(MANIFEST, data)
        except RemoteConflictError:
            if self._store.read(MANIFEST) != data:
                raise OutputError(
                    f"{self._url}: another program has put a dataset here meanwhile; nothing of it was replaced: "
                    "choose another place, or use --overwrite"
                ) from None
        for name in strays - new:
            self._store.delete(name)
        self._clean(None, manifest)
        self.ended = True
        return dataclasses.replace(summary, out=self._url)

    def _rename(self, manifest: Manifest) -> set[str]:
        """Give each shard the name that it has in the manifest; return the names that shards had before."""
        before = set()
        for split in manifest.splits:
            stem = f"{manifest.name}-{split.name}-"
            # In the order of their numbers, as when gaps were closed: each name is free by then.
            files = sorted(path.stem for path in self._ledger.glob(f"{stem}*.json"))
            files = [file for file in files if file.removeprefix(stem).removesuffix(".tar").isdigit()]
            for file, shard in zip(files, split.shards, strict=True):
                entry = self._read_entry(file)
                before |= {file, dali_index_path(Path(file)).name}
                if entry.name == shard.file:
                    continue
                facts = self._store.copy(entry.name, shard.file)
                index = dali_index_path(self.job.folder / shard.file)
                self._store.put(index.name, index.read_bytes())
                self._note(file, Uploaded(name=shard.file, size=facts.size, etag=facts.etag))
        return before

    def _compare(self, manifest: Manifest) -> None:
        """Raise `OutputError` where a shard is not in the store as it was uploaded."""
        there = {facts.name: facts.size for facts in self._store.list()}
        for split in manifest.splits:
            for shard in split.shards:
                if there.get(shard.file) != shard.bytes or dali_index_path(Path(shard.file)).name not in there:
                    raise OutputError(
                        f"{self._store.place(shard.file)}: was uploaded, and is missing or of another size now; let "
                        "nothing else write there, and run the same command again"
                    )

    def _remove_old(self, new: set[str]) -> None:
        """Remove the dataset that is replaced, but for what is written again under the same name."""
        mark = _read_mark(self._store) or {}
        old = mark.get("old")
        if old is None:
            manifest = _read_manifest(self._store)
            old = [] if manifest is None else files_of(manifest)
            self._store.put(_MARK, to_json({**mark, "old": old}))
        # The manifest goes first: none ever describes a mix of old and new files.
        self._store.delete(MANIFEST)
        there = {facts.name for facts in self._store.list()}
        for name in sorted((set(old) - new) & there):
            self._store.delete(name)

    def _discard(self, mark: Mapping[str, Any], manifest: Manifest | None) -> None:
        """Remove the unfinished dataset of a mark."""
        doomed = {name for name in self._names if name.startswith(_NEXT)}
        if manifest is None:
            doomed |= self._names & {*planned_files(mark), *mark.get("old", ())}
        for name in sorted(doomed):
            self._store.delete(name)
        self._names -= doomed
        self._store.delete(_MARK)

    def _clean(self, mark: Mapping[str, Any] | None, manifest: Manifest) -> None:
        """Remove what is not of the finished dataset: its journal, and names that shards had before."""
        strays = set() if mark is None else set(planned_files(mark)) - set(files_of(manifest))
        there = {facts.name for facts in self._store.list(f"{JOB_FOLDER}/")}
        for name in sorted(strays & self._names) + sorted(there - {_MARK}) + [_MARK] * (_MARK in there):
            self._store.delete(name)

    def _holds(self) -> bool:
        """Return whether all shards that were uploaded are in the store still; forget those that are not."""
        there = {facts.name: facts for facts in self._store.list()}
        lost = []
        for path in sorted(self._ledger.glob("*.json")):
            entry = self._read_entry(path.stem)
            facts = there.get(entry.name)
            if facts is None or facts.size != entry.size or facts.etag != entry.etag:
                lost.append(path.stem)
        if lost and (self.job.closing_gaps or finished_in(self.job.out) is not None):
            return False
        for file in lost:
            self.forget(file)
            (self.job.folder / file).unlink(missing_ok=True)
        return True

    def _empty(self) -> None:
        self.job.empty()
        shutil.rmtree(self._ledger, ignore_errors=True)

    def _another(self, changed: Sequence[str], state: str) -> OutputError:
        return OutputError(
            f"{self._url}: was {state} with other options or another source ({'; '.join(changed)}); use the same, "
            "another place, or --overwrite to replace it"
        )

    def _put_new(self, name: str, data: bytes) -> None:
        try:
            self._store.put(name, data, only_if_absent=True)
        except RemoteConflictError:
            raise
        except (OptionError, OutputError):
            # A server without conditions; what else is wrong shows here again.
            self._store.put(name, data)

    def _lines(self, name: str) -> list[str]:
        try:
            return self._store.read(name).decode("utf-8").splitlines()
        except RemoteMissingError:
            return []

    def _entry(self, file: str) -> Path:
        return self._ledger / f"{file}.json"

    def _note(self, file: str, uploaded: Uploaded) -> None:
        self._ledger.mkdir(parents=True, exist_ok=True)
        write_atomic(self._entry(file), json.dumps(dataclasses.asdict(uploaded)).encode())

    def _read_entry(self, file: str) -> Uploaded:
        return Uploaded(**json.loads(self._entry(file).read_bytes()))
