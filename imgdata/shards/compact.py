"""A dataset, views of it -> the same dataset with these samples alone, as one version, in the same folder.

What views leave out is still in the shards, and an append leaves shards that are not full, and new samples behind old
ones. Here the samples that are left are written anew, in an order that is shuffled as a whole, and take the place of
the dataset once they are whole: as `imgdata shard --overwrite` does it.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.arrow import numbers, text_array
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.manifest import Manifest, dataset_folder
from imgdata.dataset.members import Member
from imgdata.errors import OptionError, ShardError
from imgdata.sample import ClassName
from imgdata.shards.job import write_listing
from imgdata.shards.job_folder import own
from imgdata.shards.merge import complete_append
from imgdata.shards.options import ShardOptions
from imgdata.shards.parallel import check_workers
from imgdata.shards.summary import ShardSummary, Watcher, finished_summary
from imgdata.sources.listing import Listing
from imgdata.sources.member_columns import MemberColumns
from imgdata.sources.readers import RangeReader
from imgdata.storage.local_paths import local_path
from imgdata.views.by_split import views_by_split
from imgdata.views.saved import list_views, load_view
from imgdata.views.view import View

_CLASS_FIELDS = ("class_id", "class_name")


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """The result of `compact`."""

    summary: ShardSummary
    left_out: int
    """Samples that are in the dataset no more."""
    versions: int
    """Versions that became one."""
    stale_views: tuple[str, ...]
    """Saved views that were made of the samples before, and can't be opened any more."""


def compact(
    dataset: str | Path,
    views: str | Sequence[str] = (),
    *,
    workers: int | None = None,
    watch: Watcher | None = None,
) -> Compacted:
    """Rewrite a dataset in place as one version, with the samples of `views` alone, under their labels.

    A view is a saved one, in place of its split, or steps for all other splits; without any, all samples stay. Images
    keep their bytes. The old dataset stays until the new one is whole, which takes as much room again; after an
    interruption the same call resumes. Saved views and states of loaders that were made before don't fit afterwards.

    Raises `OptionError` for views that don't fit and where there is nothing to do, and else as `shard` does.
    """
    started = time.perf_counter()
    out = local_path(dataset_folder(dataset), "DATASET")
    texts = (views,) if isinstance(views, str) else tuple(views)
    if not out.is_dir():
        # Says what is wrong.
        open_dataset(out)
    with own(out) as job:
        complete_append(job)
        job.complete_overwrite()
        opened = open_dataset(out)
        manifest = opened.manifest
        stale = tuple(list_views(opened))
        done = manifest.source.get("compacted") and manifest.version == 1 and _texts(manifest) == texts
        if done and not any(_is_of_these(opened, text) for text in texts):
            return Compacted(summary=finished_summary(out), left_out=0, versions=1, stale_views=())
        if manifest.source.get("kind") == "index":
            raise OptionError(
                f"{out}: holds tars that `imgdata index` found, which are not replaced; write the samples to another "
                f"folder: `imgdata shard {out} NEW --view ...`"
            )
        if any(split.parts is not None for split in manifest.splits):
            raise OptionError(
                f"{out}: has an index in parts, and can't be compacted; shard a view of it into a new folder"
            )
        if not texts and manifest.version == 1:
            raise OptionError(f"{out}: has one version, and no view is named, so there is nothing to leave out")
        listing = _listing(opened, texts)
        options = _options(manifest)
        summary = write_listing(
            job,
            listing,
            options,
            workers=check_workers(workers),
            overwrite=True,
            watch=watch or Watcher(),
            started=started,
            extension=manifest.image_extension,
            identity=_identity(manifest, listing, texts),
        )
    return Compacted(
        summary=summary, left_out=manifest.samples - len(listing), versions=manifest.version, stale_views=stale
    )


def _texts(manifest: Manifest) -> tuple[str, ...]:
    return tuple(manifest.options.get("views", ()))


def _is_of_these(dataset: Dataset, text: str) -> bool:
    """Return whether `text` begins with a saved view that was made of the dataset's samples as they are now."""
    name = text.partition("|")[0].strip()
    if name not in list_views(dataset):
        return False
    try:
        load_view(dataset, name)
    except ShardError:
        return False
    return True


def _options(manifest: Manifest) -> ShardOptions:
    """Return the options by which images keep their bytes, and shards are cut as the dataset's."""
    known = manifest.options
    return ShardOptions(
        name=manifest.name,
        shard_bytes=known["shard_bytes"],
        shard_samples=known["shard_samples"],
        seed=known["seed"],
        shuffle=known["shuffle"],
        # All were checked when they came in; what is damaged since must not be left out unseen.
        check="none" if known["check"] == "none" else "header",
        on_bad="fail",
        max_pixels=known["max_pixels"],
        crop_ready=bool(known.get("crop_ready", False)),
        json_members=known["json_members"],
        hash=known.get("hash", "sha256"),
    )


def _identity(manifest: Manifest, listing: Listing, texts: tuple[str, ...]) -> dict[str, Any]:
    """Return what `dataset.json` says: the options that images were made with, and what was compacted."""
    return {
        "options": {**manifest.options, "views": list(texts)},
        "source": {"kind": manifest.source.get("kind", ""), "fingerprint": listing.fingerprint(), "compacted": True},
    }


def _listing(dataset: Dataset, texts: Sequence[str]) -> Listing:
    """Return the samples of the views. Raises `OptionError`."""
    views = views_by_split(dataset, texts)
    classes = next(iter(views.values())).classes
    for split, view in views.items():
        if view.resampling is not None:
            raise OptionError(f"view of {split}: balance draws samples several times, which shards can't; leave it out")
        if view.classes != classes:
            raise OptionError(f"views must have the same classes, got others in {next(iter(views))} and {split}")
        if view.targets is not None and view.targets.replaced:
            raise OptionError(f"view of {split}: relabelled targets can't be baked in; leave the relabel step out")
    containers: dict[str, int] = {}
    parts: dict[str, list[Any]] = {name: [] for name in ("split", "label", "size", "container", "offset")}
    texts_of: dict[str, list[str]] = {name: [] for name in ("name", "key", "fields")}
    for number, (split, view) in enumerate(views.items()):
        index, row_N = view.index, view.position_N
        words = [containers.setdefault(word, len(containers)) for word in index.words("shard")]
        parts["split"].append(np.full(len(row_N), number, np.uint8))
        parts["label"].append(view.label_N)
        parts["size"].append(index.size_N[row_N])
        parts["offset"].append(index.offset_N[row_N])
        parts["container"].append(np.array(words, np.int32)[index.shard_N[row_N]])
        texts_of["name"] += index.column("source").take(pa.array(row_N)).to_pylist()
        texts_of["key"] += index.keys(row_N)
        texts_of["fields"] += _fields(dataset, split, view)
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    arrays = {name: pa.chunked_array([text_array(values)]) for name, values in texts_of.items()}
    manifest = dataset.manifest
    return Listing(
        title=manifest.source.get("title", manifest.name),
        kind="compact",
        reader=RangeReader([dataset.folder.local(name) for name in containers]),
        classes=classes,
        splits=tuple(views),
        split_N=columns["split"],
        label_N=columns["label"],
        size_N=columns["size"].astype(np.int64),
        container_N=columns["container"],
        offset_N=columns["offset"].astype(np.int64),
        name_N=arrays["name"],
        key_N=arrays["key"],
        fields_N=arrays["fields"] if any(texts_of["fields"]) else None,
        members=_members(manifest.members, views, columns["container"], texts_of["key"]),
        target=manifest.target,
        # Those of an append are of its source alone.
        warnings=tuple(manifest.source.get("warnings", ())) if manifest.version == 1 else (),
    )


def _members(
    members: Sequence[Member], views: Mapping[str, View], container_N: NDArray[np.int32], keys: Sequence[str]
) -> tuple[MemberColumns, ...]:
    """Return the places of the samples' further images, which are in the same tars as the pictures."""
    found = []
    for member in members:
        offset, size, *_ = member.columns
        offset_N, size_N = (
            np.concatenate([numbers(view.index.column(name))[view.position_N] for view in views.values()])
            for name in (offset, size)
        )
        names = [f"{key}.{member.name}" if there else "" for key, there in zip(keys, size_N.tolist(), strict=True)]
        found.append(
            MemberColumns(
                member=member,
                name_N=pa.chunked_array([text_array(names)]),
                size_N=size_N.astype(np.int64),
                container_N=container_N,
                offset_N=offset_N.astype(np.int64),
            )
        )
    return tuple(found)


def _fields(dataset: Dataset, split: str, view: View) -> list[str]:
    """Return the further columns of each sample as a JSON object; what `imgdata shard` adds itself is left out."""
    if not view.index.has_json:
        return [""] * len(view.position_N)
    index, classes, opened = view.index, dataset.classes, dataset[split]
    source_N, found = index.column("source"), []
    for position in view.position_N.tolist():
        label = int(index.label_N[position])
        one = classes[label] if label >= 0 else ClassName("", "")
        added = {
            "source": source_N[position].as_py(),
            "width": int(index.width_N[position]),
            "height": int(index.height_N[position]),
            **dict(zip(_CLASS_FIELDS, one, strict=True)),
        }
        kept = {name: value for name, value in opened.fields(position).items() if added.get(name, ...) != value}
        found.append(json.dumps(kept, separators=(",", ":")) if kept else "")
    return found
