"""A loader, the address of a server, a folder to keep things in -> figures of two epochs, in a process of its own.

`python -m benchmarks.remote_run NAME ADDRESS KEPT DATA` prints one JSON line. Layouts are buckets of the server; an
empty address is the folder DATA on this machine. Of imgdata a process of another loader imports
`imgdata.measure.timing` alone.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.loader_peers.task import Batches, Task, data_loader, tensor_transform

CORES = 2
BATCH = 256


def ours(task: Task, address: str, kept: Path) -> Batches:
    """imgdata, with its cache of shards in `kept`."""
    from benchmarks.loader_peers.ours import recipe
    from imgdata import Loader

    os.environ["IMGDATA_CACHE"] = str(kept)
    loader: Batches = Loader(
        "s3://shards/" if address else task.data / "shards",
        split="train",
        batch_size=task.batch,
        recipe=recipe(task),
        threads=task.threads,
        shuffle="window",
        drop_last=True,
        cache="disk:100",
    )
    return loader


def webdataset(task: Task, address: str, kept: Path) -> Batches:
    """Read by webdataset over HTTP by `pipe:curl`, as its docs advise, with its own cache folder."""
    import webdataset as wds

    transform = tensor_transform(task)
    shards = sorted(path.name for path in (task.data / "shards").glob("*.tar"))
    urls = [f"pipe:curl -s -f {address}/shards/{name}" for name in shards]
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(shards), cache_dir=str(kept))
        .shuffle(1000)
        .to_tuple("jpg", "cls")
        .map_tuple(transform, int)
        .batched(task.batch, partial=False)
    )
    return data_loader(task, dataset, batch_size=None, drop_last=False, persistent_workers=True)


def streaming(task: Task, address: str, kept: Path) -> Batches:
    """MosaicML's `StreamingDataset` from S3."""
    from benchmarks.loader_peers.torch_loaders import mds_images

    images = mds_images(task, remote="s3://mds/", local=str(kept))
    # With workers that stay, its second epoch never begins.
    return data_loader(task, images)


def litdata(task: Task, address: str, kept: Path) -> Batches:
    """Lightning's `StreamingDataset` from S3, with its own loader."""
    from litdata.streaming import downloader
    from litdata.streaming.resolver import Dir

    from benchmarks.loader_peers.torch_loaders import lit_loader

    # The server speaks plain HTTP.
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    storage = {"endpoint_url": address, "aws_access_key_id": "x", "aws_secret_access_key": "y"}
    place = Dir(path=str(kept), url="s3://litdata/")
    return lit_loader(task, place, persistent_workers=True, storage_options=storage)


class Peer(NamedTuple):
    """A loader, and what it imports, which is not timed."""

    open: Callable[[Task, str, Path], Batches]
    modules: tuple[str, ...]


TORCH = ("torch", "torchvision.transforms.v2")
PEERS = {
    "imgdata": Peer(ours, ("torch", "imgdata.loader.loader", "imgdata.recipes", "obstore.store")),
    "webdataset": Peer(webdataset, (*TORCH, "webdataset")),
    "Streaming": Peer(streaming, (*TORCH, "streaming", "boto3")),
    "LitData": Peer(litdata, (*TORCH, "litdata", "obstore.store")),
}


def main() -> None:
    """Read two epochs and print their figures."""
    name, address, kept, data = sys.argv[1:]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.update(AWS_ENDPOINT_URL=address, S3_ENDPOINT_URL=address)
    task = Task(data=Path(data), dtype="uint8", threads=CORES, batch=BATCH)
    for module in PEERS[name].modules:
        importlib.import_module(module)
    from imgdata.measure.timing import cpu_s, process_tree

    found: dict[str, float] = {}
    begun, before, loader = time.perf_counter(), cpu_s(process_tree()), None
    for which in ("first", "second"):
        if loader is None:
            loader = PEERS[name].open(task, address, Path(kept))
        done = 0
        for images, labels in loader:
            if not done:
                found[f"{which}_batch_s"] = time.perf_counter() - begun
            done += len(labels)
            assert np.asarray(images[:1]).any()
        seconds, cpu = time.perf_counter() - begun, cpu_s(process_tree())
        found[f"{which}_images_per_s"], found[f"{which}_cpu_ms"] = done / seconds, 1000 * (cpu - before) / done
        begun, before = time.perf_counter(), cpu
    print(json.dumps(found), file=figures, flush=True)
    if name == "imgdata":
        print(repr(loader), file=sys.stderr)
    os._exit(0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
