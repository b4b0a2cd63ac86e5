"""Small tars as other tools write them, for tests."""

import gc
import io
import tarfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import webdataset

import imgdata
from support.rawdata import encoded


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar of these files, in order, by the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pairs(count: int, prefix: str = "s", classes: int = 3) -> list[tuple[str, bytes]]:
    """`count` samples of a JPEG and a cls member."""
    files = []
    for i in range(count):
        files += [
            (f"{prefix}{i:04d}.jpg", encoded(i, (32 + i % 7, 24))),
            (f"{prefix}{i:04d}.cls", b"%d" % (i % classes)),
        ]
    return files


def shard_writer(folder: Path, splits: Mapping[str, int], *, maxcount: int = 5, json: bool = False) -> Path:
    """`folder/demo-SPLIT-000000.tar`, ... by webdataset's own writer: 3 classes, `maxcount` samples a tar."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        with webdataset.ShardWriter(str(folder / f"demo-{split}-%06d.tar"), maxcount=maxcount, verbose=0) as writer:
            for i in range(count):
                sample = {"__key__": f"{split}/{i:04d}", "jpg": encoded(i, (32 + i % 7, 24)), "cls": i % 3}
                writer.write({**sample, **({"json": {"number": i, "tags": ["a", "ü"]}} if json else {})})
    return folder


def dataset(folder: Path, splits: Mapping[str, int] | None = None, *, json: bool = False) -> Path:
    """An indexed dataset of webdataset's shards."""
    shard_writer(folder, splits or {"train": 12, "val": 5}, json=json)
    imgdata.index(folder, workers=2)
    return folder


def flip(path: Path, byte: int) -> None:
    """Change one bit of the file."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def webdataset_samples(tars: Sequence[Path]) -> list[dict[str, bytes]]:
    """What webdataset reads."""
    with warnings.catch_warnings():
        # It leaves closing the tars to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False))
        gc.collect()
    return samples
