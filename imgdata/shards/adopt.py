"""WebDataset tars made elsewhere -> index and sidecars beside them; the tars stay as they are."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.index import index_schema
from imgdata.errors import ImageError, OptionError, ShardError
from imgdata.files import JOB_FOLDER
from imgdata.headers import ImageInfo, probe
from imgdata.keys import duplicate_positions
from imgdata.sample import ClassName
from imgdata.shards.sidecars import (
    DaliMember,
    ShardRecord,
    SplitRecord,
    dali_index_path,
    write_dali_index,
    write_sidecars,
)
from imgdata.sources.listing import clean_title, escape_name
from imgdata.sources.tar_labels import LabelReader, choose_label_source
from imgdata.sources.tar_samples import TarSample, image_member, is_image, several_images_warning, tar_samples
from imgdata.sources.tars import TarSet, expand, tar_set
from imgdata.tar import Member

_UNKNOWN = ImageInfo(format="unknown", width=0, height=0, mode="unknown", bits=0)


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """What was found in one tar."""

    record: ShardRecord
    table: pa.Table
    """Rows of the index, with `JSON_FIELDS`; labels as `labels` numbers them."""
    labels: LabelReader
    extensions: Counter[str]
    several: Counter[tuple[str, ...]]
    """Extensions of the images of samples that have several."""
    without_image: int
    bad: int
    first_bad: str


@dataclass
class _Rows:
    """The samples of one tar as columns, while it is read."""

    tar: Path
    labels: LabelReader
    columns: dict[str, list[object]] = field(
        default_factory=lambda: {name: [] for name in index_schema(has_json=True).names}
    )
    members: list[list[DaliMember]] = field(default_factory=list)
    extensions: Counter[str] = field(default_factory=Counter)
    several: Counter[tuple[str, ...]] = field(default_factory=Counter)
    bad: int = 0
    first_bad: str = ""

    def add(self, sample: TarSample, extension: str, descriptor: int) -> None:
        """Append one sample, whose image is the member `extension`."""
        image = sample.members[extension]
        data = _read(descriptor, image, self.tar)
        try:
            info = probe(data)
        except ImageError as error:
            info = _UNKNOWN
            self.bad += 1
            self.first_bad = self.first_bad or f"{sample.key}: {error}"
        side = sample.members.get("json")
        fields = b"" if side is None else _read(descriptor, side, self.tar)
        row: tuple[object, ...] = (
            escape_name(sample.key),
            self.tar.name,
            image.offset,
            image.size,
            self.labels.read(sample, descriptor, self.tar),
            info.width,
            info.height,
            info.mode,
            info.format,
            info.orientation,
            xxhash.xxh64_intdigest(data),
            escape_name(image.name),
            0 if side is None else side.offset,
            len(fields),
            xxhash.xxh64_intdigest(fields) if side else 0,
        )
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        self.members.append([(ext, member.offset, member.size, member.name) for ext, member in sample.members.items()])
        self.extensions[extension] += 1
        images = tuple(ext for ext in sample.members if is_image(ext))
        if len(images) > 1:
            self.several[images] += 1

    def table(self) -> pa.Table:
        """The columns as `index_schema` has them."""
        schema = index_schema(has_json=True)
        return pa.table([pa.array(self.columns[column.name], column.type) for column in schema], schema=schema)


def index(
    tars: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    name: str | None = None,
    image_ext: Sequence[str] = (),
    label_from: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Index the tars and write all sidecars into `out`, by default the folder they lie in.

    `tars` are tars, folders, globs or brace patterns. Splits are read from the names of the tars, classes from
    `dataset.json` where there is one. `progress(done, total)` hears of every finished tar. Raises `SourceError`,
    `ShardError` or `OptionError`; then `dataset.json` is as it was before.
    """
    patterns = [tars] if isinstance(tars, str | Path) else list(tars)
    found = tar_set(list(dict.fromkeys(tar for pattern in patterns for tar in expand(pattern))))
    folder = _folder(found, Path(out) if out is not None else None)
    extensions = tuple(ext.lower().lstrip(".") for ext in image_ext)
    source = _label_source(found, extensions, label_from)
    scans: list[_Scan] = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # Hashing and decoding leave the interpreter to the other threads.
        jobs = [pool.submit(_scan, tar, extensions, source) for tar in found.tars]
        try:
            for done, job in enumerate(jobs, 1):
                scans.append(job.result())
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write(folder, found, scans, clean_title(name or found.title), source)
    return open_dataset(folder)


def _folder(found: TarSet, out: Path | None) -> Path:
    folder = out or found.root
    outside = next((tar for tar in found.tars if os.path.abspath(tar.parent) != os.path.abspath(folder)), None)
    if outside is not None:
        raise OptionError(
            f"tars must lie in the folder of their index, {folder}, got {outside}; "
            "index each folder by itself, or re-shard them with `imgdata shard`"
        )
    if (folder / JOB_FOLDER).is_dir():
        raise ShardError(f"{folder}: not finished; run the same `imgdata shard` command again, it resumes")
    given = {tar.name for tar in found.tars}
    listed = [shard.file for split in found.manifest.splits for shard in split.shards] if found.manifest else []
    left_out = next((file for file in listed if file not in given and (folder / file).exists()), None)
    if left_out is not None:
        raise OptionError(f"{folder}: {left_out} is a shard of this dataset too; give all of them, or the folder")
    indices: dict[Path, Path] = {}
    for tar in found.tars:
        other = indices.setdefault(dali_index_path(tar), tar)
        if other is not tar:
            raise ShardError(
                f"{tar} and {other.name}: DALI's index of both would be {dali_index_path(tar).name}, "
                "the name up to the first dot; rename one"
            )
    return folder


def _label_source(found: TarSet, image_ext: tuple[str, ...], wanted: str) -> str:
    """Decided once by the first sample with an image, so that all shards are read alike."""
    if wanted == "auto" and found.manifest is not None:
        return found.manifest.label_from
    for tar in found.tars:
        with open(tar, "rb", buffering=0) as file:
            for sample in tar_samples(tar):
                if image_member(sample, image_ext) is not None:
                    return choose_label_source(sample, file.fileno(), tar, wanted)
    wanted_images = f"with extension {', '.join(image_ext)}" if image_ext else "with a usual image extension"
    raise ShardError(f"{found.root}: no sample {wanted_images} in the tars; name it with --image-ext")


def _scan(tar: Path, image_ext: tuple[str, ...], source: str) -> _Scan:
    rows = _Rows(tar, LabelReader(source))
    without_image = 0
    with open(tar, "rb", buffering=0) as file:
        for sample in tar_samples(tar):
            extension = image_member(sample, image_ext)
            if extension is None:
                without_image += 1
            else:
                rows.add(sample, extension, file.fileno())
        num_bytes = os.fstat(file.fileno()).st_size
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if not rows.members:
        raise ShardError(f"{tar}: no sample with an image in it; leave this tar out, or name it with --image-ext")
    write_dali_index(dali_index_path(tar), rows.members)
    return _Scan(
        record=ShardRecord(tar.name, len(rows.members), num_bytes, sha256),
        table=rows.table(),
        labels=rows.labels,
        extensions=rows.extensions,
        several=Counter() if image_ext else rows.several,
        without_image=without_image,
        bad=rows.bad,
        first_bad=rows.first_bad,
    )


def _read(descriptor: int, member: Member, tar: Path) -> bytes:
    data = os.pread(descriptor, member.size, member.offset)
    if len(data) != member.size:
        raise ShardError(f"{tar}: cut short inside {member.name} at byte {member.offset + len(data)}")
    return data


def _write(folder: Path, found: TarSet, scans: Sequence[_Scan], name: str, label_source: str) -> None:
    manifest = found.manifest
    has_json = any(pc.any(pc.greater(scan.table["json_size"], 0)).as_py() for scan in scans)
    labels, tables, classes = _merge_labels(scans, label_source, manifest.classes if manifest else ())
    names = index_schema(has_json=has_json).names
    splits = []
    for split in dict.fromkeys(found.splits):
        of_split = [i for i, name_of_tar in enumerate(found.splits) if name_of_tar == split]
        splits.append(
            SplitRecord(
                name=split,
                index_file=f"{name}-{split}.index.parquet",
                shards=tuple(scans[i].record for i in of_split),
                table=pa.concat_tables([tables[i].select(names) for i in of_split]),
            )
        )
    extensions: Counter[str] = sum((scan.extensions for scan in scans), Counter())
    image_extension = ";".join(sorted(extensions, key=lambda ext: (-extensions[ext], ext)))
    if manifest is not None and manifest.source.get("kind") != "index":
        # Shards of `imgdata shard`: what made them stays on record.
        options, source, rejected = manifest.options, manifest.source, manifest.rejected
    else:
        skipped = sum(scan.without_image for scan in scans)
        hashes = "".join(scan.record.sha256 for scan in scans)
        options, rejected = {"label_from": label_source}, 0
        source = {
            "kind": "index",
            "title": name,
            "fingerprint": xxhash.xxh3_128_hexdigest(hashes.encode()),
            "skipped": {"samples without an image": skipped} if skipped else {},
            "warnings": [*_warnings(scans, splits), *labels.warnings()],
        }
    write_sidecars(
        folder,
        name=name,
        classes=classes,
        splits=splits,
        options=options,
        source=source,
        image_extension=image_extension,
        rejected=rejected,
        has_json=has_json,
        label_from=label_source,
    )


def _merge_labels(
    scans: Sequence[_Scan], source: str, known: Sequence[ClassName]
) -> tuple[LabelReader, list[pa.Table], tuple[ClassName, ...]]:
    """The tables with one numbering for the labels of all tars."""
    merged = LabelReader(source)
    label_N, classes = merged.finish(
        np.concatenate([merged.absorb(scan.labels, scan.table["label"].to_numpy()) for scan in scans]), known
    )
    tables, start = [], 0
    for scan in scans:
        end = start + len(scan.table)
        position = scan.table.schema.get_field_index("label")
        labels = pa.array(label_N[start:end], pa.int32())
        tables.append(scan.table.set_column(position, scan.table.schema.field(position), labels))
        start = end
    return merged, tables, classes


def _warnings(scans: Sequence[_Scan], splits: Sequence[SplitRecord]) -> list[str]:
    warnings = several_images_warning(sum((scan.several for scan in scans), Counter()))
    bad = sum(scan.bad for scan in scans)
    if bad:
        first = next(scan for scan in scans if scan.bad)
        warnings.append(
            f"{bad} images can't be recognised (format 'unknown' in the index), the first is "
            f"{first.record.file}, {first.first_bad}; `imgdata verify --deep` lists all"
        )
    for split in splits:
        keys = [str(key) for key in split.table["key"].to_pylist()]
        repeated = duplicate_positions(keys)
        if repeated:
            warnings.append(f"{len(repeated)} keys of split {split.name} occur twice, the first is {keys[repeated[0]]}")
    return warnings
