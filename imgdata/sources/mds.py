"""Folders of MosaicML's Streaming (MDS) -> Listing; images are read where they lie, packed shards are unpacked.

photos/train/index.json  photos/train/shard.00000.mds ...  photos/val/...     or one such folder alone
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imgdata.errors import SourceError
from imgdata.sources.chunk_files import INDEX, ChunkFile, Column, Decode, indexes, list_chunks, member, plain_name
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions
from imgdata.storage.reading import parse_json

NAME = "mds"

_NUMBERS = {
    "int": "int64",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_TEXTS: dict[str, Callable[[bytes], Any]] = {
    "str": bytes.decode,
    "str_int": int,
    "str_float": float,
    "str_decimal": bytes.decode,
    "json": parse_json,
}
_IMAGES = frozenset({"bytes", "jpeg", "png"})
_PACKINGS = ("zstd", "gz")


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is, or holds, folders of Streaming. Raises `SourceError` for a damaged index."""
    found = [one for one in indexes(path, "shards") if _is_mds(one[2])]
    return f"MosaicML's Streaming ({INDEX} of {len(found)} folders)" if found else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return the samples of all shards, in the order of the indexes.

    Raises `SourceError` for shards that are missing, cut short, damaged, or packed in a way that isn't read.
    """
    files = [
        _shard(folder, path, split, shard)
        for folder, split, index in indexes(path, "shards")
        if _is_mds(index)
        for shard in index["shards"]
    ]
    return list_chunks(files, path=path, kind=NAME, options=options)


def _is_mds(index: dict[str, Any]) -> bool:
    return any(isinstance(shard, dict) and shard.get("format") == "mds" for shard in index["shards"])


def _shard(folder: Path, top: Path, split: str | None, shard: Any) -> ChunkFile:
    where = folder / INDEX
    if not isinstance(shard, dict) or shard.get("format") != "mds":
        raise SourceError(f"{where}: a shard is of another format than mds")
    raw = member(shard, "raw_data", dict, where)
    name, size = plain_name(raw.get("basename")), member(raw, "bytes", int, where)
    packed = shard.get("zip_data")
    if packed is not None and name is not None and not (folder / name).is_file():
        name = plain_name(packed.get("basename")) if isinstance(packed, dict) else None
        packing = str(shard.get("compression")).split(":")[0]
        if packing not in _PACKINGS:
            raise SourceError(
                f"{where}: shards are packed with {packing}, which isn't read; unpack them (keep_zip=False)"
            )
    else:
        packed = None
    if name is None:
        raise SourceError(f"{where}: damaged: a shard has no plain name")
    names, forms, sizes = (member(shard, f"column_{what}", list, where) for what in ("names", "encodings", "sizes"))
    if not len(names) == len(forms) == len(sizes):
        raise SourceError(f"{where}: damaged: names, encodings and sizes of columns differ in number")
    columns = tuple(_column(str(one), str(form), width) for one, form, width in zip(names, forms, sizes, strict=True))
    return ChunkFile(
        path=folder / name,
        name=(folder / name).relative_to(top).as_posix(),
        split=split,
        samples=member(shard, "samples", int, where),
        size=size,
        packed=packed is not None,
        columns=columns,
    )


def _column(name: str, form: str, size: object) -> Column:
    width = size if isinstance(size, int) and size >= 0 else None
    if form in _NUMBERS:
        return Column(name, np.dtype(_NUMBERS[form]).itemsize, _number(_NUMBERS[form]), False)
    return Column(name, width, _TEXTS.get(form), form in _IMAGES)


def _number(dtype: str) -> Decode:
    return lambda data: np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))[0].item()
