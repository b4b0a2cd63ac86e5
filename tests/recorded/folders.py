"""Raw datasets, commands -> what is recorded of the files that they write.

A file is recorded by its sha256. Three things in it may differ without a fault, and are put in order before:

- The index is a Parquet file, whose bytes follow the version of PyArrow: recorded is the hash of its rows and, for the
  same version, that of its bytes. Wherever its sha256 stands in other files, `<NAME>` stands instead.
- `dataset.json` names the version of imgdata, its own sha256 and, where images are encoded, the encoder: left out.
- The sha256 of a file that was put in order is, in others, that of what it became.

Where images are encoded by Pillow or zlib, their bytes and all places and sizes that follow from these are left out:
recorded are the pixels and the rest of the index.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

import imgdata
from recorded import raw
from recorded.places import command

BY_PLACE = ("offset", "size", "xxh64", "shard", "json_offset", "json_size", "json_xxh64")
"""Columns of the index that follow from the encoded bytes."""


@dataclass(frozen=True)
class Case:
    """One command that makes a dataset folder, and what it works on."""

    make: Callable[[Path], Path | str]
    options: Sequence[str] = ()
    encodes: bool = False
    """Whether the bytes of the images depend on the encoder."""


def synthetic(text: str) -> Callable[[Path], str]:
    return lambda _: f"synthetic:{text}"


SHARD: dict[str, Case] = {
    "cifar10-python": Case(raw.cifar10_python, ("--shard-size", "20KB")),
    "cifar10-binary": Case(raw.cifar10_binary, ("--shard-samples", "7", "--no-shuffle")),
    "cifar100-python": Case(raw.cifar100_python, ("--seed", "5")),
    "cifar100-python-coarse": Case(raw.cifar100_python, ("--labels", "coarse", "--shard-samples", "10")),
    "cifar100-binary": Case(raw.cifar100_binary, ("--json-members",)),
    "cifar-kaggle": Case(raw.cifar_kaggle, ("--shard-samples", "5")),
    "imagenet-official": Case(raw.imagenet_official, ("--shard-size", "20KB")),
    "imagenet-official-two-classes": Case(raw.imagenet_official, ("--classes", "n01484850,n01440764")),
    "imagenet-folders": Case(raw.imagenet_folders, ("--name", "in1k", "--shard-samples", "3", "--seed", "9")),
    "imagenet-flat-val": Case(raw.imagenet_flat_val),
    "imagenet-flat-val-csv": Case(raw.imagenet_flat_val_csv, ("--json-members",)),
    "imagenet-kaggle": Case(raw.imagenet_kaggle, ("--check", "header")),
    "imagenet21k": Case(raw.imagenet21k, ("--split", "train=0.75,val=0.25")),
    "folder": Case(raw.folders, ("--shard-size", "15KB")),
    "folder-by-count": Case(raw.folders, ("--shard-samples", "5", "--json-members", "--seed", "3", "--check", "none")),
    "folder-some": Case(raw.folders, ("--exclude", "train/*/*.png", "--classes", "hund,katze", "--no-shuffle")),
    "folder-cut": Case(raw.plain_folders, ("--split", "train=0.7,val=0.2,test=0.1", "--seed", "11")),
    "folder-uncut": Case(raw.plain_folders, ("--shard-samples", "9")),
    "rejects": Case(raw.odd_folders, ("--max-pixels", "1000", "--shard-samples", "2", "--no-shuffle")),
    "rejects-of-whole-shards": Case(raw.odd_folders, ("--max-pixels", "1000", "--shard-samples", "1", "--no-shuffle")),
    "table": Case(raw.table, ("--shard-samples", "4")),
    "table-columns": Case(
        raw.table, ("--label-column", "photographer", "--split-column", "", "--split", "train=0.5,test=0.5")
    ),
    "table-of-many-labels": Case(raw.many_labels),
    "parquet": Case(raw.parquet, ("--shard-samples", "4")),
    "tars": Case(raw.tars, ("--shard-samples", "4", "--seed", "2")),
    "tars-by-field": Case(raw.tars, ("--label-from", "json:number", "--name", "numbers")),
    "tars-joined": Case(raw.tars_joined, ("--name", "joined")),
    "tars-by-folder": Case(raw.tars_by_folder, ("--source", "tars", "--label-from", "folder")),
    "repairs": Case(raw.pngs_to_repair, ("--on-bad", "repair", "--shard-samples", "3"), encodes=True),
    "synthetic": Case(
        synthetic("samples=14,val=5,test=3,classes=3,width=40,height=30,seed=6,format=png"),
        ("--shard-samples", "4"),
        encodes=True,
    ),
    "synthetic-large-seed": Case(
        synthetic("samples=3,classes=2,width=33,height=47,seed=9223372036854775807,format=png"), encodes=True
    ),
}
"""What `imgdata shard` is recorded for."""

INDEX: dict[str, Case] = {
    "tars": Case(raw.tars),
    "tars-without-json": Case(lambda root: raw.tars(root, with_json=False), ("--name", "renamed")),
    "tars-by-field": Case(raw.tars, ("--label-from", "json:number")),
    "tars-by-folder": Case(raw.tars_by_folder),
    "own-shards-without-sidecars": Case(lambda root: without_sidecars(shard(SHARD["table"], root))),
    "own-shards-without-index": Case(lambda root: without_index(shard(SHARD["folder"], root))),
}
"""What `imgdata index` is recorded for."""


def without_sidecars(out: Path) -> Path:
    """The folder with nothing but its tars left."""
    for path in out.iterdir():
        if path.suffix != ".tar":
            path.unlink()
    return out


def without_index(out: Path) -> Path:
    """The folder without its indices and those of DALI."""
    for path in (*out.glob("*.parquet"), *out.glob("*.idx")):
        path.unlink()
    return out


def shard(case: Case, folder: Path) -> Path:
    """The dataset folder that `imgdata shard` makes."""
    source = case.make(folder / "raw")
    out = folder / "out"
    command("shard", source, out, "--workers", "1", "--quiet", *case.options)
    return out


def index(case: Case, folder: Path) -> Path:
    """The folder of tars, after `imgdata index`."""
    out = Path(case.make(folder / "raw"))
    command("index", out, "--workers", "1", "--quiet", *case.options)
    return out


def export(folder: Path) -> Path:
    """Class folders that `imgdata export` makes."""
    out = shard(SHARD["folder"], folder)
    command("export", out, folder / "exported", "--quiet")
    return folder / "exported"


def hashes(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file, as it is."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in files}


def record(case: Case, out: Path) -> dict[str, Any]:
    """What is recorded of the dataset folder."""
    return pixels(out) if case.encodes else {"files": ordered(out), "indices": indices(out)}


def indices(out: Path) -> dict[str, str]:
    """Name -> sha256 of each index, which follows the version of PyArrow."""
    return {path.name: _sha256(path.read_bytes()) for path in sorted(out.glob("*.parquet"))}


def ordered(out: Path) -> dict[str, str]:
    """Name -> sha256 of each file of a dataset folder, after it was put in order."""
    found: dict[str, str] = {}
    known: dict[str, str] = {}
    """Sha256 of a file as it is -> what stands for it in others."""
    for path in sorted((path for path in out.iterdir() if path.is_file()), key=_rank):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            found[path.name] = rows_hash(path)
            known[_sha256(data)] = f"<{path.name}>"
            continue
        if path.suffix not in (".tar", ".idx"):
            text = re.sub(r"\b[0-9a-f]{64}\b", lambda match: known.get(match[0], match[0]), data.decode())
            if path.name == "dataset.json":
                text = "".join(line for line in text.splitlines(keepends=True) if not _is_of_this_machine(line))
            known[_sha256(data)] = _sha256(text.encode())
            data = text.encode()
        found[path.name] = _sha256(data)
    return dict(sorted(found.items()))


def rows_hash(path: Path) -> str:
    """Hash of the names, types and values of all columns of an index."""
    table = pq.read_table(path)
    content = [[name, str(table.schema.field(name).type), table[name].to_pylist()] for name in table.column_names]
    return _sha256(json.dumps(content).encode())


def pixels(out: Path) -> dict[str, Any]:
    """What is known of each sample, without what follows from the encoded bytes; and the lists of bad images."""
    dataset = imgdata.open(out)
    facts: dict[str, Any] = {"classes": [list(one) for one in dataset.classes], "names": _names(out)}
    for name, split in dataset.items():
        table = pq.read_table(out / f"{dataset.name}-{name}.index.parquet")
        rows = table.drop_columns([column for column in BY_PLACE if column in table.column_names]).to_pylist()
        for row, sample in zip(rows, split, strict=True):
            row["pixels"] = _pixels_hash(out, sample)
        facts[name] = rows
    for path in (out / "rejects.jsonl", out / "repairs.jsonl"):
        if path.exists():
            facts[path.name] = path.read_text().splitlines()
    return facts


def _pixels_hash(out: Path, sample: imgdata.Sample) -> str:
    file = out.parent / "picture"
    file.write_bytes(sample.image)
    with Image.open(file) as image:
        return _sha256(f"{image.mode} {image.size}".encode() + image.tobytes())


def _names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def _rank(path: Path) -> tuple[int, str]:
    """A file comes after those whose hashes it holds."""
    return {".tar": 0, ".idx": 0, ".parquet": 1}.get(path.suffix, 3 if path.name == "dataset.json" else 2), path.name


def _is_of_this_machine(line: str) -> bool:
    return line.startswith(('  "sha256":', '  "imgdata":')) or line.lstrip().startswith('"encoder":')


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
