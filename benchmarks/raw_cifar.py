"""Photographs cut to 32x32 -> a small CIFAR in each of the official forms."""

import io
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photos import encoded, photo_crops
from benchmarks.raw_files import write_file, write_lines, write_set
from imgdata.sources.cifar.classes import CIFAR10, CIFAR100_COARSE, CIFAR100_FINE


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """A small CIFAR; by split (`train`, `test`)."""

    images: dict[str, NDArray[np.uint8]]
    """`(N, 32, 32, 3)`."""
    labels: dict[str, NDArray[np.int64]]
    """`(N,)`; the fine labels of CIFAR-100."""
    coarse: dict[str, NDArray[np.int64]]
    """`(N,)` superclasses of CIFAR-100; empty for CIFAR-10."""

    def records(self, split: str) -> NDArray[np.uint8]:
        """Return the images as the official files hold them: `(N, 3072)`, channel-major."""
        return np.ascontiguousarray(self.images[split].transpose(0, 3, 1, 2).reshape(len(self.images[split]), 3072))


def cifar10(train: int = 50, test: int = 10, seed: int = 0) -> Cifar:
    """Photographs cut to 32x32 in 10 classes, one of each photograph."""
    return _cifar(train, test, 10, seed)


def cifar100(train: int = 100, test: int = 20, seed: int = 0) -> Cifar:
    """Photographs cut to 32x32 in 100 classes and 20 superclasses."""
    return _cifar(train, test, 100, seed)


def write_cifar10_python(path: Path, data: Cifar) -> Path:
    """`cifar-10-batches-py` as Python 2 pickled it: an archive (`.tar.gz`, `.tar`) or a folder, as `path` is named."""
    batches = _split_in_five(data)
    files = {f"data_batch_{number}": content for number, content in enumerate(batches, start=1)}
    files["test_batch"] = (data.records("test"), data.labels["test"])
    pickles = {
        name: {
            "batch_label": f"batch {name}",
            "labels": labels_N.tolist(),
            "data": pixels_ND,
            "filenames": [f"{name}_{row:05d}.png" for row in range(len(labels_N))],
        }
        for name, (pixels_ND, labels_N) in files.items()
    }
    meta = {"num_cases_per_batch": len(batches[0][0]), "label_names": list(CIFAR10), "num_vis": 3072}
    return write_set(path, "cifar-10-batches-py", _pickled({"batches.meta": meta, **pickles}))


def write_cifar100_python(path: Path, data: Cifar) -> Path:
    """`cifar-100-python`, as an archive or a folder."""
    content: dict[str, object] = {
        "meta": {
            "fine_label_names": list(CIFAR100_FINE),
            "coarse_label_names": list(CIFAR100_COARSE),
        }
    }
    for split in ("train", "test"):
        content[split] = {
            "filenames": [f"{split}_s_{row:06d}.png" for row in range(len(data.labels[split]))],
            "batch_label": f"{split} batch 1 of 1",
            "fine_labels": data.labels[split].tolist(),
            "coarse_labels": data.coarse[split].tolist(),
            "data": data.records(split),
        }
    return write_set(path, "cifar-100-python", _pickled(content))


def write_cifar_binary(path: Path, data: Cifar) -> Path:
    """`cifar-10-batches-bin` or `cifar-100-binary`, by whether there are superclasses; an archive or a folder."""
    if data.coarse:
        files = {
            f"{split}.bin": _records(data.records(split), data.coarse[split], data.labels[split])
            for split in data.labels
        }
        files["fine_label_names.txt"] = "\n".join(CIFAR100_FINE).encode() + b"\n"
        files["coarse_label_names.txt"] = "\n".join(CIFAR100_COARSE).encode() + b"\n"
        return write_set(path, "cifar-100-binary", files)
    parts = _split_in_five(data)
    files = {f"data_batch_{number}.bin": _records(*part) for number, part in enumerate(parts, start=1)}
    files["test_batch.bin"] = _records(data.records("test"), data.labels["test"])
    files["batches.meta.txt"] = "\n".join(CIFAR10).encode() + b"\n\n"
    return write_set(path, "cifar-10-batches-bin", files)


def write_cifar_kaggle(root: Path, data: Cifar) -> Path:
    """Kaggle's CIFAR-10: `train/<id>.png` from 1 on, `trainLabels.csv`, `test/` without labels."""
    for split in ("train", "test"):
        for row, image_HWC in enumerate(data.images[split], start=1):
            write_file(root / split / f"{row}.png", encoded(Image.fromarray(image_HWC), "PNG"))
    names = [CIFAR10[label] for label in data.labels["train"].tolist()]
    write_lines(root / "trainLabels.csv", ["id,label", *(f"{row},{name}" for row, name in enumerate(names, start=1))])
    return root


class Python2Pickler(pickle._Pickler):
    """Pickles text and bytes as Python 2 did its `str`, which is what the official archives hold."""

    write: Any
    memoize: Any
    # What the base class looks its writers up in, by type.
    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Save the global under the name that NumPy had then."""
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    def _save_string(self, obj: str | bytes) -> None:
        data = obj.encode("latin-1") if isinstance(obj, str) else obj
        self.write((b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))) + data)
        self.memoize(obj)

    dispatch[str] = dispatch[bytes] = _save_string
    dispatch[type] = save_global


def _cifar(train: int, test: int, classes: int, seed: int) -> Cifar:
    images, labels, coarse = {}, {}, {}
    # Five classes make a superclass, in an order of its own.
    superclass_C = np.random.Generator(np.random.Philox(key=[seed, 5])).permutation(np.arange(classes) % 20)
    for order, (split, count) in enumerate((("train", train), ("test", test))):
        generator = np.random.Generator(np.random.Philox(key=[seed, 10 + order]))
        labels[split] = generator.permutation(np.arange(count) % classes)
        sources = [photo_crops(count, (32, 32), seed + 1000 * order, photo=label) for label in range(classes)]
        pixels = [np.asarray(next(sources[label])) for label in labels[split].tolist()]
        images[split] = np.stack(pixels) if pixels else np.empty((0, 32, 32, 3), np.uint8)
        if classes == 100:
            coarse[split] = superclass_C[labels[split]]
    return Cifar(images=images, labels=labels, coarse=coarse)


def _split_in_five(data: Cifar) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    parts = zip(np.array_split(data.records("train"), 5), np.array_split(data.labels["train"], 5), strict=True)
    return list(parts)


def _records(pixels_ND: NDArray[np.uint8], *labels: NDArray[np.int64]) -> bytes:
    columns = [label_N.astype(np.uint8)[:, None] for label_N in labels]
    return np.hstack([*columns, pixels_ND]).tobytes()


def _pickled(objects: Mapping[str, object]) -> dict[str, bytes]:
    files = {}
    for name, content in objects.items():
        file = io.BytesIO()
        Python2Pickler(file, protocol=2).dump(content)
        files[name] = file.getvalue()
    return files
