"""A path and options -> the source that fits the files there, and its listing.

Every source is asked whether it recognises the layout. Where several do, the one that knows more wins: CIFAR and
ImageNet before all general layouts, WebDataset before a table beside it, a table that names files and labels before
the folders that the files lie in. Other combinations are for the user to decide with `--source`.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from imgdata.errors import OptionError, ShardError, SourceError
from imgdata.sources.classes import some
from imgdata.sources.folder_names import is_hidden, mask_folders
from imgdata.sources.listing import Listing
from imgdata.sources.mask_files import with_masks
from imgdata.sources.options import SourceOptions
from imgdata.sources.seen import PACKED, not_understood
from imgdata.sources.table.columns import unreadable_tables
from imgdata.sources.target import with_target, without_labels
from imgdata.sources.walk import Entries, extension, is_image, remembered, visible


class Source(Protocol):
    """Interface of the module of each source."""

    NAME: str

    def recognise(self, path: Path) -> str | None:
        """Return one short phrase that says why `path` has this layout, or None.

        Raises `SourceError` or `ShardError` for files that would have this layout if they were not damaged.
        """
        ...

    def list_samples(self, path: Path, options: SourceOptions) -> Listing:
        """Return all samples of the dataset at `path`."""
        ...


class _SourceOfColumns(Source, Protocol):
    def holds_column(self, path: Path, name: str) -> bool:
        """Return whether the files at `path` have a column of bytes called `name`."""
        ...


_LAYOUTS = {
    "cifar": "CIFAR-10 or CIFAR-100: python or binary archive or folder, Kaggle's train/ with trainLabels.csv",
    "imagenet": "ImageNet: train/<wnid>/, the official ILSVRC2012 tars, Kaggle's ILSVRC/, a tar for each class",
    "arrays": "arrays: MNIST's train-images-idx3-ubyte(.gz), x_train and y_train in an .npz or .npy",
    "coco": "COCO: annotations/captions_train2017.json or instances_train2017.json beside train2017/",
    "voc": "Pascal VOC: JPEGImages/ with SegmentationClass/ or Annotations/, lists in ImageSets/",
    "pairs": "images and masks: images/1.jpg with masks/1.png, images/train with masks/train; ADE20K, Cityscapes",
    "tars": "WebDataset: tars of image and cls members, a folder or a pattern of them",
    "parquet": "Parquet with image bytes: data/train-*.parquet",
    "table": "a table of files and labels (.csv, .tsv, .jsonl, .parquet) beside or above the images",
    "folder": "class folders: train/cat/1.jpg and val/cat/2.jpg, or cat/1.jpg",
    "arrow": "Arrow files of Hugging Face's save_to_disk: train/state.json, train/data-00000-of-00001.arrow",
    "zip": "class folders in a .zip, or one for each split: train.zip, val.zip",
    "tfrecord": "TFRecord files of tf.train.Example: train-00000-of-01024, x-train.tfrecord, x.tfrecord.gz",
    "hdf5": "arrays, or encoded images, in HDF5: images and labels, x_train and y_train, train/images",
    "lmdb": "LMDB of encoded images, LSUN's, Caffe's: train_lmdb/data.mdb, train.lmdb",
    "mds": "MosaicML's Streaming: train/index.json, train/shard.00000.mds",
    "litdata": "LitData: train/index.json, train/chunk-0-0.bin",
    "synthetic": "synthetic:samples=1000,classes=10",
}

KINDS = tuple(_LAYOUTS)
"""Names of all sources, as `--source` takes them."""

_MODULES = {kind: f"{kind}.source" for kind in ("cifar", "imagenet", "parquet", "table")}
"""Modules of the sources that are packages."""
_STORES = frozenset({"arrow", "hdf5", "litdata", "lmdb", "mds", "tfrecord", "zip"})
"""Formats of other loaders: where such a file lies beside another layout, the other layout is read."""
_GENERAL = frozenset({"tars", "parquet", "table", "pairs", "folder"}) | _STORES
_BEATS: dict[str, frozenset[str]] = {
    "cifar": _GENERAL,
    "imagenet": _GENERAL,
    "coco": _GENERAL,
    "voc": _GENERAL,
    "arrays": _STORES,
    "tars": _STORES | {"table"},
    "parquet": _STORES,
    "table": _STORES | {"folder", "pairs"},
    "pairs": _STORES | {"folder"},
    "folder": _STORES,
}
_WITHOUT_PATH = ("synthetic", "tars")
"""Sources that also take descriptions and patterns."""


def list_source(path: str | os.PathLike[str], options: SourceOptions) -> Listing:
    """Return the listing of the raw dataset at `path`.

    Raises `SourceError` or `OptionError`, each with what to do about it.
    """
    try:
        with remembered():
            listing = detect(path, options).list_samples(Path(path), without_labels(options))
            if options.masks is not None and listing.kind != "pairs":
                listing = with_masks(listing, Path(path), options.masks)
    except RecursionError:
        raise SourceError(f"{path}: folders are nested too deeply; give a folder nearer to the images") from None
    return with_target(listing, options)


def detect(path: str | os.PathLike[str], options: SourceOptions) -> Source:
    """Return the source that `options.kind` names, else the one that recognises the layout of `path`.

    Raises `OptionError` for an unknown kind, `SourceError` when no source fits or several do.
    """
    if options.kind is not None:
        return source(options.kind)
    path = Path(path)
    if path.is_dir() and (options.table is not None or options.path_column is not None):
        return source("table")
    if options.masks is not None and _lies_unnamed_in(options.masks, path):
        return source("pairs")
    asked = KINDS if path.exists() else _WITHOUT_PATH
    reasons: dict[str, str] = {}
    faults: list[tuple[str, str]] = []
    for kind in asked:
        try:
            reason = source(kind).recognise(path)
        except (SourceError, ShardError) as error:
            if kind not in _GENERAL:
                raise
            # The damaged file may lie beside a layout that another source reads.
            faults.append((kind, str(error)))
            continue
        if reason is not None:
            reasons[kind] = reason
    if {"tars", "folder"} <= reasons.keys():
        from imgdata.sources.tars import only_datasets_below

        if only_datasets_below(path):
            # Such as shards that were made from these folders.
            del reasons["tars"]
    image, parquet = options.image_column, cast(_SourceOfColumns, source("parquet"))
    if image is not None and not reasons and parquet.holds_column(path, image):
        # Several columns of plain bytes are not recognised by unusual names.
        reasons["parquet"] = "--image-column"
    if (options.label_column is not None or options.split_column) and path.is_dir():
        # Folders have no columns; a table whose columns have unusual names is not recognised by them.
        reasons.pop("folder", None)
        reasons = reasons or {"table": "--label-column, --split-column"}
    unread = [fault for kind, fault in faults if kind in ("tars", "parquet")] if path.is_dir() else []
    if reasons.keys() == {"folder"}:
        # Folders are classes only where no table names the labels.
        unread += [fault for fault in unreadable_tables(path) if fault not in unread]
    if unread and reasons:
        others = "; ".join(f"--source {kind}: {reasons[kind]}" for kind in reasons)
        raise SourceError(
            f"{'; '.join(fault.rstrip('.') for fault in unread)}. It lies beside what can be read ({others}): mend it, "
            "move it away, or choose with --source"
        )
    beaten = frozenset[str]().union(*(_BEATS.get(kind, frozenset()) for kind in reasons))
    left = [kind for kind in reasons if kind not in beaten]
    if len(left) == 1:
        return source(left[0])
    if left:
        found = "; ".join(f"--source {kind}: {reasons[kind]}" for kind in left)
        raise SourceError(f"{path}: several layouts fit, choose one with --source ({found})")
    # A Parquet file is tried as a table too, with the same message.
    raise SourceError(_nothing_fits(path, list(dict.fromkeys(fault.rstrip(".") for _, fault in faults))))


def _lies_unnamed_in(masks: Path, path: Path) -> bool:
    """Return whether a folder of masks is one of a dataset's own folders, and is not called like one of masks."""
    if not path.is_dir() or not masks.is_dir() or path.resolve() not in masks.resolve().parents:
        return False
    beside = visible(masks.parent)
    return masks.name not in mask_folders(beside.folders, images_beside=any(map(is_image, beside.files)))


def source(kind: str) -> Source:
    """Return the module of the source called `kind`. Raises `OptionError` when there is none."""
    if kind not in KINDS:
        raise OptionError(f"--source must be one of {', '.join(KINDS)}, got {kind!r}")
    # Imported when asked for: a source that is named needs none of the others.
    return cast(Source, importlib.import_module(f"imgdata.sources.{_MODULES.get(kind, kind)}"))


def _nothing_fits(path: Path, faults: Sequence[str]) -> str:
    if not path.exists():
        return f"{path}: no such file or folder"
    if path.is_file() and faults:
        return "; ".join(faults)
    if path.is_file():
        ending = extension(path.name)
        advice = "unpack it first, then give the folder" if ending in PACKED else "give a folder of images"
        return f"{path}: this file is no archive or table of a known dataset; {advice}. {_looked_for()}"
    entries = visible(path)
    if not any(entries):
        hidden = sum(map(is_hidden, os.listdir(path)))
        return f"{path}: the folder is empty" + (f" but for {hidden} hidden entries" if hidden else "")
    faults = [fault.removeprefix(f"{path}{os.sep}") for fault in faults]
    faults = [*faults, *not_understood(path), *_images_deep_down(path)]
    seen = f" Seen and not understood: {'; '.join(faults)}." if faults else ""
    return f"{path}: no known layout.{seen} Found there: {_seen(entries)}. {_looked_for()}"


def _images_deep_down(path: Path) -> list[str]:
    """Return one sentence when images lie deeper than the sources look, else none."""
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in sorted(folders) if not is_hidden(name)]
        if any(map(is_image, files)):
            inside = os.path.relpath(folder, path)
            return [f"images lie in {inside}/, among many folders; give a folder nearer to them, or --source folder"]
    return []


def _looked_for() -> str:
    """Return the layouts, a line each, under a line that says how to name one."""
    width = max(map(len, _LAYOUTS))
    lines = [f"  {kind:<{width}}  {layout}" for kind, layout in _LAYOUTS.items()]
    return "\n".join(["--source of `imgdata shard` names the layout. Looked for:", *lines])


def _seen(entries: Entries) -> str:
    return some([*(name + "/" for name in entries.folders), *entries.files])
