"""Work whose calls may fail: what writes, from `crashes`, and what reads, also from and to stores."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import imgdata
from imgdata.errors import ShardError
from imgdata.recipes import RandomResizedCrop, Recipe
from imgdata.storage.remote import RemoteStore
from support.crashes import WORKS, Work, digests, samples_in
from support.loaders import dataset
from support.rawdata import class_folders
from support.remote_servers import BUCKET, web_server

Found = Any


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Something that reads files, and gives what must be the same in every run."""

    before: Callable[[Path], object]
    """Makes what is read, in a folder that does not exist before."""
    act: Callable[[Path], Found]
    server: str = ""
    """The address of a store that is read as well; the variable `SERVER` has that of the proxy before it."""


@dataclass(frozen=True, kw_only=True)
class Writing(Work):
    """Work on a store: see `Reading.server`."""

    server: str
    clean: Callable[[], object]
    """Removes all that is in the store."""


SERVER = "IMGDATA_TEST_SERVER"
"""Variable with the address of the store, or of the proxy before it, while `act` runs."""


def verifying(place: Path, stack: contextlib.ExitStack) -> Reading:
    """`verify`: a file that can't be read is named."""

    def verify(out: Path) -> Found:
        faults = [str(fault) for fault in imgdata.verify(out)]
        unread = [text for text in faults if "can't be read" in text]
        if unread:
            raise ShardError(f"{out}: {unread[0]}")
        return faults

    return Reading(before=lambda out: sharded(place, out), act=verify)


def reading_samples(place: Path, stack: contextlib.ExitStack) -> Reading:
    """Samples of a split, one by one."""

    def read(out: Path) -> Found:
        split = imgdata.open(out)["train"]
        return [(one.key, one.label, one.image) for one in split]

    return Reading(before=lambda out: sharded(place, out), act=read)


def auditing(place: Path, stack: contextlib.ExitStack) -> Work:
    """`audit` with a report, of a dataset in which pictures are alike."""
    made = place / "made"
    raw = class_folders(place / "pets", {"train": 3, "val": 1})
    shutil.copy(raw / "train/cat/000.jpg", raw / "val/dog/100.jpg")
    imgdata.shard(raw, made, shard_samples=3, workers=1)

    def act(out: Path) -> None:
        with mock.patch.dict(os.environ, IMGDATA_CACHE=str(out / "cache")):
            imgdata.audit(made, out / "report", only=["duplicates", "quality", "balance"], workers=1)

    def read(out: Path) -> Found:
        if not (out / "report" / "findings.json").exists():
            raise ShardError(f"{out}: no report")
        return (out / "report" / "findings.json").read_bytes()

    return Work(before=lambda out: out.mkdir(), act=act, read=read, ends=lambda out: sorted(digests(out / "report")))


def compacting(place: Path, stack: contextlib.ExitStack) -> Work:
    """`compact` of a dataset, without a class."""

    def act(out: Path) -> None:
        # Done already where the error came behind the end.
        with contextlib.suppress(ShardError):
            if not any(one.key.startswith("newt") for one in imgdata.open(out)["train"]):
                return
        imgdata.compact(out, ["where class in cat,dog"], workers=1)

    def ends(out: Path) -> Found:
        # What could not be removed is removed by the next run that writes there, and there is none.
        return {name: digest for name, digest in digests(out).items() if not name.startswith(".imgdata/")}

    return Work(before=lambda out: sharded(place, out), act=act, read=samples_in, ends=ends)


def sharded(place: Path, out: Path) -> None:
    raw = class_folders(place / "pets", {"train": 3, "val": 1})
    imgdata.shard(raw, out, shard_samples=3, workers=1)


def batches(what: str | Path, **options: Any) -> Found:
    """Two epochs: positions, labels, and a hash of the pixels."""
    recipe = Recipe(RandomResizedCrop(size=16))
    with imgdata.Loader(what, split="train", batch_size=8, recipe=recipe, threads=2, **options) as loader:
        return [
            (
                batch.positions.tolist(),
                batch.labels.tolist(),
                hashlib.sha256(batch.images.numpy().tobytes()).hexdigest(),
            )
            for _ in range(2)
            for batch in loader
        ]


def loading_a_folder(place: Path, stack: contextlib.ExitStack) -> Reading:
    """Two epochs of a loader over a folder."""
    return Reading(before=lambda out: dataset(made(out), count=24), act=batches)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def loading_a_store(place: Path, stack: contextlib.ExitStack) -> Reading:
    """Two epochs of a loader over a web server, whose shards are kept on the disk."""
    served = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    dataset(made(served / "ds"), count=24)

    def act(cache: Path) -> Found:
        with mock.patch.dict(os.environ, IMGDATA_CACHE=str(cache)):
            return batches(f"{os.environ[SERVER]}/ds", cache="disk:1")

    return Reading(before=made, act=act, server=stack.enter_context(web_server(served)))


def sharding_to_a_store(place: Path, stack: contextlib.ExitStack) -> Writing:
    """`shard` into a bucket of the server at `AWS_ENDPOINT_URL`."""
    raw = class_folders(place / "pets", {"train": 2, "val": 1})
    server, url = os.environ["AWS_ENDPOINT_URL"], f"s3://{BUCKET}/faults"

    def store() -> RemoteStore:
        return RemoteStore(url, endpoint=server)

    def clean() -> None:
        for facts in store().list():
            store().delete(facts.name)

    def act(work: Path) -> None:
        with mock.patch.dict(os.environ, AWS_ENDPOINT_URL=os.environ[SERVER]):
            imgdata.shard(raw, url, shard_samples=3, workers=1, work=work)

    def read(work: Path) -> Found:
        found = imgdata.open(url)
        return {split: [(one.key, one.label, one.image) for one in found[split]] for split in found}

    def ends(work: Path) -> Found:
        objects = {facts.name: hashlib.sha256(store().read(facts.name)).hexdigest() for facts in store().list()}
        return objects, digests(work)

    return Writing(before=made, act=act, read=read, ends=ends, server=server, clean=clean)


CACHE = "a shard in the cache"
ALL: Mapping[str, Callable[[Path, contextlib.ExitStack], Work | Reading]] = {
    # A cache of shards raises errors of the system, and who reads from a store does without it: see below.
    **{name: lambda place, stack, make=make: make(place) for name, make in WORKS.items() if name != CACHE},
    "shard to a store": sharding_to_a_store,
    "compact": compacting,
    "audit": auditing,
    "verify": verifying,
    "samples": reading_samples,
    "a loader of a folder": loading_a_folder,
    "a loader of a store": loading_a_store,
}
ON_S3 = "shard to a store"
