"""Folders of LitData -> Listing; images are read where they lie in the chunks.

photos/train/index.json  photos/train/chunk-0-0.bin ...  photos/val/...     or one such folder alone
"""

import json
import struct
from pathlib import Path
from typing import Any

from imgdata.errors import SourceError
from imgdata.sources.chunk_files import INDEX, ChunkFile, Column, Decode, indexes, list_chunks, member, plain_name
from imgdata.sources.listing import Listing
from imgdata.sources.options import SourceOptions

NAME = "litdata"

_LOADER = "PyTreeLoader"
_IMAGES = frozenset({"bytes", "jpeg", "image", "file"})
_VALUES: dict[str, Decode] = {
    "int": lambda data: _unpacked("<q", data),
    "float": lambda data: _unpacked("<d", data),
    "bool": lambda data: bool(_unpacked("<B", data)),
    "str": bytes.decode,
}


def recognise(path: Path) -> str | None:
    """Return a phrase when `path` is, or holds, folders of LitData. Raises `SourceError` for a damaged index."""
    found = [one for one in indexes(path, "chunks") if isinstance(one[2].get("config"), dict)]
    return f"LitData ({INDEX} of {len(found)} folders)" if found else None


def list_samples(path: Path, options: SourceOptions) -> Listing:
    """Return the samples of all chunks, in the order of the indexes.

    Raises `SourceError` for chunks that are missing, cut short, damaged, compressed or encrypted.
    """
    files = []
    for folder, split, index in indexes(path, "chunks"):
        where = folder / INDEX
        columns = _columns(member(index, "config", dict, where), where)
        for chunk in index["chunks"]:
            name = plain_name(chunk.get("filename")) if isinstance(chunk, dict) else None
            if name is None:
                raise SourceError(f"{where}: damaged: a chunk has no plain name")
            files.append(
                ChunkFile(
                    path=folder / name,
                    name=(folder / name).relative_to(path).as_posix(),
                    split=split,
                    samples=member(chunk, "chunk_size", int, where),
                    size=member(chunk, "chunk_bytes", int, where),
                    packed=False,
                    columns=columns,
                )
            )
    return list_chunks(files, path=path, kind=NAME, options=options)


def _columns(config: dict[str, Any], where: Path) -> tuple[Column, ...]:
    for what in ("compression", "encryption"):
        if config.get(what):
            raise SourceError(f"{where}: chunks with {what} ({config[what]}) aren't read; optimize the data without it")
    if config.get("item_loader", _LOADER) not in (None, _LOADER):
        raise SourceError(f"{where}: chunks for {config['item_loader']} hold no samples of images")
    forms = member(config, "data_format", list, where)
    names = _names(config.get("data_spec"), len(forms))
    if names is None:
        raise SourceError(f"{where}: each sample must be a dictionary, a tuple or a list without others inside")
    return tuple(
        Column(name, None, _VALUES.get(str(form)), form in _IMAGES) for name, form in zip(names, forms, strict=True)
    )


def _names(spec: object, count: int) -> list[str] | None:
    """Return the keys of dictionaries, or numbers for other samples; None for samples that are nested."""
    try:
        tree = json.loads(spec)[1] if isinstance(spec, str) else {}
        children = tree.get("children_spec") or []
        if any(child.get("children_spec") for child in children):
            return None
        names = [str(key) for key in json.loads(tree["context"])] if "dict" in str(tree.get("type")) else []
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    return names if len(names) == count else None if names else [str(number) for number in range(count)]


def _unpacked(form: str, data: bytes) -> Any:
    try:
        return struct.unpack(form, data)[0]
    except struct.error as error:
        raise ValueError(str(error)) from error
