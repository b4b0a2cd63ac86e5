"""A number of images -> the same JPEGs in every layout that a loader of the benchmark reads.

| folder | what |
|---|---|
| `folders` | class folders |
| `shards` | `imgdata shard`: WebDataset tars with our index |
| `mds`, `litdata`, `array_record`, `tfrecord`, `parquet`, `beton` | written by the peers themselves |
"""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import imgdata
from benchmarks import data
from benchmarks.report import ROOT

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
CLASSES = 10
_MIN_SHARDS = 8
"""Loaders give whole shards to their workers, and mix better among several."""
_WRITERS = {"mds": "MDS", "litdata": "LitData", "array_record": "ArrayRecord", "tfrecord": "TFRecord"}
_WRITERS["parquet"] = "HF parquet"
_WRITTEN_HERE = ("parquet",)
"""Layouts whose writer is in our own environment: Streaming keeps Hugging Face's packages at old versions."""


def build(folder: Path, images: int, layouts: set[str]) -> None:
    """Write what is missing of `layouts` into `folder`; the images depend on their number alone.

    Raises `ImportError` where the peer that writes a layout isn't installed.
    """
    source = folder / "folders"
    if not source.exists():
        partial = folder / "folders.partial"
        with ProcessPoolExecutor() as pool:
            list(pool.map(_write_class, repeat(partial), range(CLASSES), repeat(-(-images // CLASSES))))
        partial.rename(source)
    present = sum(1 for _ in source.rglob("*.jpg"))
    if present < images:
        raise RuntimeError(f"{folder}: must have {images} images, got {present} of an earlier run; take another folder")
    for layout in sorted(layouts - {"folders"}):
        if not (folder / layout).exists():
            _write(layout, source, folder / layout)


def _write_class(root: Path, label: int, count: int) -> None:
    data.write_imagenet_like(root / f"class{label:02d}", count, label)


def _write(layout: str, source: Path, out: Path) -> None:
    partial = out.with_name(f"{out.name}.partial")
    if layout == "shards":
        num_bytes = sum(path.stat().st_size for path in source.rglob("*.jpg"))
        imgdata.shard(source, partial, imgdata.ShardOptions(shard_bytes=num_bytes // _MIN_SHARDS))
    else:
        _write_by_peer(layout, source, partial)
    partial.rename(out)


def _write_by_peer(layout: str, source: Path, out: Path) -> None:
    module = ["benchmarks.loader_peers.ffcv_loader"] if layout == "beton" else ["benchmarks.writers", _WRITERS[layout]]
    python = sys.executable if layout in _WRITTEN_HERE else str(PEERS_PYTHON)
    command = [python, "-m", *module, str(source), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.rstrip().rpartition("\n")[2]
    if done.returncode and last.startswith(("ModuleNotFoundError: ", "ImportError: ")):
        raise ImportError(last.partition(": ")[2])
    if done.returncode:
        raise RuntimeError(f"{layout} was not written:\n{done.stderr[-2000:]}")
