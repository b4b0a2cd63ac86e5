"""Raw datasets of every kind, whose bytes depend on no library that decodes or encodes pictures."""

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import raw_cifar, raw_imagenet
from benchmarks.raw_files import write_file, write_lines
from support.tars import write_tar

_JPEGS = json.loads((Path(__file__).parent / "jpegs.json").read_text())
"""Kind -> JPEG of 16 x 12 pixels, in base64."""


def random_bytes(seed: int, count: int) -> NDArray[np.uint8]:
    """uint8 `(count,)`, the same on every machine."""
    words = np.random.Philox(key=np.array([seed, 0], np.uint64)).random_raw(-(-count // 8))
    return words.astype("<u8").view(np.uint8)[:count].copy()


def stored(data: bytes) -> bytes:
    """A zlib stream of `data` as it is: there is one way to write it, whatever the version of zlib."""
    parts = [data[start : start + 65_535] for start in range(0, len(data), 65_535)]
    blocks = [
        struct.pack("<BHH", number == len(parts) - 1, len(part), len(part) ^ 0xFFFF) + part
        for number, part in enumerate(parts)
    ]
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_of(pixels: NDArray[np.integer], *extra: bytes) -> bytes:
    """A PNG of `(H, W, C)` values of 8 or 16 bits: gray, gray and alpha, RGB or RGBA; `extra` chunks come first."""
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    bits = 8 * pixels.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", head, *extra, chunk(b"IDAT", stored(rows)), chunk(b"IEND", b"")),
    )


def png(seed: int, width: int = 12, height: int = 10, channels: int = 3, bits: int = 8) -> bytes:
    """A PNG of noise."""
    data = random_bytes(seed, height * width * channels * bits // 8)
    return png_of(data.view(f"<u{bits // 8}").reshape(height, width, channels))


def jpeg(seed: int, kind: str | None = None) -> bytes:
    """A small JPEG with a comment of its own, so that each differs; `kind` is one of `jpegs.json`."""
    kinds = ("blue", "red", "green", "gray")
    data = base64.b64decode(_JPEGS[kind or kinds[seed % len(kinds)]])
    comment = b"number %d" % seed + b"." * (seed % 7)
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[2:]


def cifar(classes: int) -> raw_cifar.Cifar:
    """A CIFAR of noise: 25 images to train with and 5 to test with."""
    counts = {"train": 25, "test": 5}
    images = {
        split: random_bytes(classes + place, count * 3072).reshape(count, 32, 32, 3)
        for place, (split, count) in enumerate(counts.items())
    }
    labels = {split: (np.arange(count) * 7 + 3) % classes for split, count in counts.items()}
    coarse = {split: label_N % 20 for split, label_N in labels.items()} if classes == 100 else {}
    return raw_cifar.Cifar(images=images, labels=labels, coarse=coarse)


def cifar10_python(root: Path) -> Path:
    return raw_cifar.write_cifar10_python(root / "cifar-10-python.tar.gz", cifar(10))


def cifar10_binary(root: Path) -> Path:
    return raw_cifar.write_cifar_binary(root / "cifar-10-binary.tar.gz", cifar(10))


def cifar100_python(root: Path) -> Path:
    return raw_cifar.write_cifar100_python(root / "cifar-100-python", cifar(100))


def cifar100_binary(root: Path) -> Path:
    return raw_cifar.write_cifar_binary(root / "cifar-100-binary.tar.gz", cifar(100))


def cifar_kaggle(root: Path) -> Path:
    """Kaggle's tree, with PNGs of noise."""
    for split, count in (("train", 12), ("test", 3)):
        for number in range(1, count + 1):
            write_file(root / "kaggle" / split / f"{number}.png", png(number, 32, 32))
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    labels = [f"{number},{names[number * 3 % 10]}" for number in range(1, 13)]
    write_lines(root / "kaggle" / "trainLabels.csv", ["id,label", *labels])
    return root / "kaggle"


def imagenet() -> raw_imagenet.ImageNet:
    """Four classes of four JPEGs, six to validate with; the devkit's ids are not in the order of the wnids."""
    wnids = list(raw_imagenet.WNIDS)[:4]
    train = {
        wnid: {f"{wnid}_{number * 7 + label}.JPEG": jpeg(label * 10 + number) for number in range(4)}
        for label, wnid in enumerate(wnids)
    }
    val = {f"ILSVRC2012_val_{number:08d}.JPEG": (wnids[number * 3 % 4], jpeg(100 + number)) for number in range(1, 7)}
    ids = {wnid: (rank + 1) % 4 + 1 for rank, wnid in enumerate(wnids)}
    names = {wnid: raw_imagenet.WNIDS[wnid] for wnid in wnids}
    return raw_imagenet.ImageNet(names=names, ilsvrc_ids=ids, train=train, val=val)


def imagenet_official(root: Path) -> Path:
    return raw_imagenet.write_imagenet_official(root / "imagenet", imagenet())


def imagenet_folders(root: Path) -> Path:
    return raw_imagenet.write_imagenet_folders(root / "imagenet", imagenet())


def imagenet_flat_val(root: Path) -> Path:
    return raw_imagenet.write_imagenet_flat_val(root / "imagenet", imagenet(), labels="folder")


def imagenet_flat_val_csv(root: Path) -> Path:
    return raw_imagenet.write_imagenet_flat_val(root / "imagenet", imagenet(), labels="csv")


def imagenet_kaggle(root: Path) -> Path:
    return raw_imagenet.write_imagenet_kaggle(root / "imagenet", imagenet())


def imagenet21k(root: Path) -> Path:
    return raw_imagenet.write_imagenet21k(root / "imagenet21k", imagenet())


def folders(root: Path) -> Path:
    """Class folders with splits, names of several scripts, JPEGs with a few PNGs, files that are no images."""
    top = root / "Tierfotos 2024"
    names = ("katze", "hund", "süßes äffchen", "лиса")
    for place, (split, count) in enumerate((("train", 6), ("val", 2), ("test", 1))):
        for label, name in enumerate(names):
            for number in range(count):
                seed = 100 * place + 10 * label + number
                image = png(seed, 9 + label) if number == 5 else jpeg(seed)
                suffix = "png" if number == 5 else ("jpg", "JPEG")[number % 2]
                write_file(top / split / name / f"bild {number}.{suffix}", image)
    write_file(top / "train" / "katze" / "notes.txt", b"no image")
    write_file(top / "train" / "katze" / "Thumbs.db", b"no image")
    return top


def plain_folders(root: Path) -> Path:
    """Class folders without splits, at two depths."""
    for label, name in enumerate(("birds/owl", "birds/wren", "cat", "dog")):
        for number in range(10):
            write_file(root / "plain" / name / f"{number:02d}.jpg", jpeg(20 * label + number))
    return root / "plain"


def odd_folders(root: Path) -> Path:
    """Good, bad and odd JPEGs and PNGs: cut short, empty, no images, turned, CMYK, 16 bits."""
    good = {f"a/{number}.jpg": jpeg(number) for number in range(5)} | {f"b/{n}.jpg": jpeg(n + 50) for n in range(4)}
    files = {
        **good,
        "a/cut.jpg": jpeg(7, "blue")[:-6],
        "a/empty.jpg": b"",
        "a/text.jpg": b"this is no image at all\n" * 3,
        "b/cut.png": png(8)[:-40],
        "b/large.png": png(9, 50, 40),
        "b/cmyk.jpg": jpeg(10, "cmyk"),
        "b/turned.jpg": jpeg(11, "turned"),
        "b/deep.png": png(12, bits=16),
    }
    for name, data in files.items():
        write_file(root / "odd" / name, data)
    return root / "odd"


def pngs_to_repair(root: Path) -> Path:
    """PNGs that `--on-bad repair` makes into 8-bit RGB, and plain ones."""
    files = {"a/plain.png": png(1), "b/plain.png": png(2, 7, 5)}
    files |= {"a/gray.png": png(3, channels=1), "b/gray-deep.png": png(4, channels=1, bits=16)}
    files |= {"a/deep.png": png(5, bits=16), "b/see-through.png": png(6, channels=4)}
    files |= {"a/gray-see-through.png": png(7, channels=2), "b/cut.png": png(8)[:-40]}
    for name, data in files.items():
        write_file(root / "repair" / name, data)
    return root / "repair"


def table(root: Path) -> Path:
    """A CSV table with splits and further columns, which become `json` members."""
    lines = ["path,label,split,photographer,year"]
    for number in range(14):
        write_file(root / "table" / "images" / f"a{number}.jpg", jpeg(number))
        split = "val" if number % 5 == 4 else "train"
        lines.append(
            f"images/a{number}.jpg,{('cat', 'dog', 'newt')[number % 3]},{split},Zoë {number % 2},{2000 + number}"
        )
    write_lines(root / "table" / "labels.csv", lines)
    return root / "table"


def many_labels(root: Path) -> Path:
    """JSON lines with several labels for each image: none becomes the class."""
    lines = []
    for number in range(6):
        write_file(root / "many" / f"{number}.png", png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "labels": [number % 2, 3]}))
    write_lines(root / "many" / "metadata.jsonl", lines)
    return root / "many"


def parquet(root: Path) -> Path:
    """Files as Hugging Face's hub has them, with class names in their metadata and a further column."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    seed = 0
    for file, count in (("train-00000-of-00002", 6), ("train-00001-of-00002", 5), ("validation-00000-of-00001", 4)):
        rows = range(seed, seed + count)
        images = pa.array([{"bytes": jpeg(row), "path": f"picture {row}.jpg"} for row in rows], kind)
        columns = {"image": images, "label": [row % 2 for row in rows], "caption": [f"caption {row}" for row in rows]}
        written = pa.table(columns).replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
        path = root / "hub" / "data" / f"{file}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(written, path, row_group_size=3)
        seed += count
    return root / "hub"


def tars(root: Path, *, with_json: bool = True) -> Path:
    """WebDataset tars with `cls` and, if wanted, `json` members, in two splits."""
    for split, shards in (("train", 2), ("val", 1)):
        for shard in range(shards):
            files: list[tuple[str, bytes]] = []
            for number in range(5):
                key = f"{split}/{shard}{number}"
                files += [(f"{key}.jpg", jpeg(10 * shard + number)), (f"{key}.cls", b"%d" % (number % 3))]
                files += [(f"{key}.json", json.dumps({"number": number, "tags": ["a", "ü"]}).encode())] * with_json
            write_tar(root / "shards" / f"demo-{split}-{shard:06d}.tar", files)
    return root / "shards"


def tars_joined(root: Path) -> str:
    """Two patterns of tars, one behind the other."""
    folder = tars(root)
    return f"{folder}/demo-val-000000.tar::{folder}/demo-train-{{000000..000001}}.tar"


def tars_by_folder(root: Path) -> Path:
    """Tars of PNGs whose labels are the folders of the keys."""
    for shard in range(2):
        names: Sequence[str] = [f"{('ant', 'bee')[number % 2]}/{shard}-{number}.png" for number in range(4)]
        write_tar(
            root / "insects" / f"insects-{shard}.tar", [(name, png(9 * shard + n)) for n, name in enumerate(names)]
        )
    return root / "insects"
