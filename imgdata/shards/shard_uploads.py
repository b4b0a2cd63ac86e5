"""Shards that are finished in a job folder -> objects, each noted when it is there, and removed here.

The job folder is that of any dataset, in which a tar that was uploaded is a hull: its first block, and a hole to its
old size. So whatever resumes or finishes a dataset does the same for both. In a folder beside it lies

    uploaded/SHARD.json     name, size and ETag of the object that a shard has become
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from imgdata.shards.engines.local import LocalEngine
from imgdata.shards.job_folder import JobFolder
from imgdata.shards.sidecars import dali_index_path
from imgdata.shards.store_parts import Uploaded
from imgdata.shards.uploading import UploadingEngine
from imgdata.storage.atomic import output_error, pread, pwrite, write_atomic
from imgdata.storage.local_paths import UrlPath
from imgdata.storage.remote import RemoteMissingError, RemoteStore

HEAD_BYTES = 512
"""First block of a tar: the name of its first member, by which a shard is recognised when gaps are closed."""


def write_hull(path: Path, size: int, kept: Mapping[int, bytes]) -> None:
    """Write a file of `size` bytes with those that are `kept`, by their offsets, and holes. Raises `OSError`."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in kept.items():
            pwrite(file.fileno(), data, offset)


class ShardUploads:
    """The shards of a job folder, on their way to a store."""

    def __init__(self, store: RemoteStore, job: JobFolder, folder: Path) -> None:
        self.job = job
        """The job whose shards are uploaded."""
        self.ended = False
        """Whether nothing in the work folder is needed any more."""
        self.store = store
        self.url = UrlPath(store.url)
        self._ledger = folder / "uploaded"

    @property
    def prefix(self) -> str:
        """Beginning of the names of objects, until they get their final ones."""
        return ""

    def mark(self) -> None:
        """Note that shards are about to be uploaded."""

    def engine(self, *, workers: int, samples: int, lock: int | None) -> UploadingEngine:
        """Return the engine that writes shards here, and uploads each."""
        return UploadingEngine(LocalEngine(workers=workers, samples=samples, lock=lock), self)

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
        name = self.prefix + file
        facts = self.store.put(name, path)
        self.store.put(dali_index_path(Path(name)).as_posix(), dali_index_path(path).read_bytes())
        return Uploaded(name=name, size=facts.size, etag=facts.etag)

    def sent(self, file: str, uploaded: Uploaded) -> None:
        """Note that a shard was uploaded, and remove it here."""
        path = self.job.folder / file
        try:
            with open(path, "rb") as tar:
                head = tar.read(HEAD_BYTES)
                kept = {offset: pread(tar.fileno(), size, offset) for offset, size in self.kept(file)}
        except OSError as error:
            raise output_error(error, path) from error
        self.note(file, uploaded)
        self.hull(file, head, uploaded.size, kept)

    def kept(self, file: str) -> list[tuple[int, int]]:
        """Return offset and size of what is needed of a shard here when it was uploaded."""
        return []

    def hull(self, file: str, head: bytes, size: int, kept: Mapping[int, bytes] | None = None) -> None:
        """Put a hull in the place of a shard here: its first bytes `head`, what is `kept`, and a hole of its size."""
        path = self.job.folder / file
        hull = self.job.path / f"{file}.hull.tmp"
        try:
            write_hull(hull, size, {0: head, **(kept or {})})
            os.replace(hull, path)
        except OSError as error:
            raise output_error(error, path) from error

    def lost(self) -> list[str]:
        """Return the shards that were uploaded, and are not in the store as they were."""
        there = {facts.name: facts for facts in self.store.list()}
        return [file for file in self.files() if not self.entry(file).is_it(there.get(self.entry(file).name))]

    def empty(self) -> None:
        """Remove what this machine has of the dataset."""
        self.job.empty()
        shutil.rmtree(self._ledger, ignore_errors=True)

    def lines(self, name: str) -> list[str]:
        """Return the lines of an object; none where it is missing."""
        try:
            return self.store.read(name).decode("utf-8").splitlines()
        except RemoteMissingError:
            return []

    def files(self, split: str = "") -> list[str]:
        """Return the names of the shards that were uploaded, as they were then; of a split, its `NAME-SPLIT-` given."""
        names = sorted(path.stem for path in self._ledger.glob("*.json") if path.name.startswith(split))
        return [name for name in names if not split or name.removeprefix(split).removesuffix(".tar").isdigit()]

    def entry(self, file: str) -> Uploaded:
        """Return the object that a shard has become."""
        return Uploaded(**json.loads(self._entry(file).read_bytes()))

    def note(self, file: str, uploaded: Uploaded) -> None:
        """Note the object that a shard has become."""
        self._ledger.mkdir(parents=True, exist_ok=True)
        write_atomic(self._entry(file), json.dumps(dataclasses.asdict(uploaded)).encode())

    def _entry(self, file: str) -> Path:
        return self._ledger / f"{file}.json"
