"""WebDataset tars made elsewhere -> index and sidecars beside them; the tars stay as they are."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from imgdata import native
from imgdata.arrow import column_array, number_array, numbers
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.fields import fields_table, join_tables
from imgdata.dataset.index import index_schema
from imgdata.dataset.manifest import HASH_KINDS, HashKind, Manifest
from imgdata.dataset.target import Target, TargetKind
from imgdata.errors import ImageError, OptionError, ShardError
from imgdata.images.info import UNKNOWN
from imgdata.images.probe import probe
from imgdata.sample import ClassName, fields_of
from imgdata.shards.hashing import file_hash
from imgdata.shards.index_targets import classes_of, target_of
from imgdata.shards.job_folder import REJECTS, REPAIRS
from imgdata.shards.kept_sources import _with_column, keep_sources
from imgdata.shards.parallel import end_if_stopped, in_threads
from imgdata.shards.sidecars import (
    DaliMember,
    ShardRecord,
    SplitRecord,
    dali_index_path,
    write_dali_index,
    write_sidecars,
)
from imgdata.sources.listing import clean_title
from imgdata.sources.parts import missing_parts
from imgdata.sources.tars import TarSet, expand, tar_set
from imgdata.storage.atomic import JOB_FOLDER
from imgdata.storage.file_names import escape_name
from imgdata.storage.local_paths import local_path
from imgdata.storage.reading import parse_json
from imgdata.tar.archive import open_tar, read_member
from imgdata.tar.keys import duplicate_positions
from imgdata.tar.labels import MAX_TEXT_BYTES, LabelReader, choose_label_source
from imgdata.tar.samples import (
    TarContents,
    TarSample,
    contents_notes,
    image_member,
    is_image,
    several_images_warning,
    tar_contents,
    tar_samples,
)


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """The contents of one tar."""

    record: ShardRecord
    table: pa.Table
    """Rows of the index, with `JSON_FIELDS` and `CROP_READY_FIELDS`; labels as `labels` numbers them."""
    labels: LabelReader
    extensions: Counter[str]
    several: Counter[tuple[str, ...]]
    """Extensions of the images of samples that have several."""
    columns: pa.Table
    """The samples' fields, of `json` and `txt` members."""
    bad_json: int
    """`json` members that are no JSON."""
    contents: TarContents
    """Counts of everything else in the tar, without its samples."""
    bad: int
    first_bad: str


@dataclass
class _Rows:
    """The samples of one tar as columns, while it is read."""

    tar: Path
    labels: LabelReader
    columns: dict[str, list[object]] = field(
        default_factory=lambda: {name: [] for name in index_schema(has_json=True, crop_ready=True).names}
    )
    members: list[list[DaliMember]] = field(default_factory=list)
    extensions: Counter[str] = field(default_factory=Counter)
    several: Counter[tuple[str, ...]] = field(default_factory=Counter)
    fields: list[dict[str, object]] = field(default_factory=list)
    bad_json: int = 0
    bad: int = 0
    first_bad: str = ""

    def add(self, sample: TarSample, extension: str, descriptor: int) -> None:
        """Append one sample, whose image is the member `extension`."""
        image = sample.members[extension]
        data = read_member(descriptor, image, self.tar)
        try:
            info = probe(data)
        except ImageError as error:
            info = UNKNOWN
            self.bad += 1
            self.first_bad = self.first_bad or f"{sample.key}: {error}"
        side = sample.members.get("json")
        fields = b"" if side is None else read_member(descriptor, side, self.tar)
        xxh64 = xxhash.xxh64_intdigest(data)
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
            xxh64,
            _source_in(fields) or escape_name(image.name),
            0 if side is None else side.offset,
            len(fields),
            xxhash.xxh64_intdigest(fields) if side else 0,
            native.crop_interval(data) if native.AVAILABLE and info.format == "jpeg" else 0,
            xxh64,
        )
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        self.fields.append(self._fields(sample, fields, descriptor))
        self.members.append([(ext, member.offset, member.size, member.name) for ext, member in sample.members.items()])
        self.extensions[extension] += 1
        images = tuple(ext for ext in sample.members if is_image(ext))
        if len(images) > 1:
            self.several[images] += 1

    def _fields(self, sample: TarSample, data: bytes, descriptor: int) -> dict[str, object]:
        """Return the fields of a sample's `json` member, and its `txt` member as `txt`."""
        try:
            fields = dict(fields_of(parse_json(data))) if data else {}
        except ValueError:
            self.bad_json += 1
            fields = {}
        if "txt" in sample.members:
            text = read_member(descriptor, sample.members["txt"], self.tar, MAX_TEXT_BYTES)
            fields.setdefault("txt", text.decode("utf-8", "replace"))
        return fields

    def table(self) -> pa.Table:
        """Return the columns as a table of `index_schema`."""
        schema = index_schema(has_json=True, crop_ready=True)
        return pa.table([column_array(self.columns[column.name], column.type) for column in schema], schema=schema)


def index(
    tars: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    name: str | None = None,
    image_ext: Sequence[str] = (),
    label_from: str = "auto",
    target: TargetKind | None = None,
    hash: HashKind = "sha256",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Index the tars and write all sidecars into `out`, by default the folder of the tars.

    `tars` are tars, folders, globs or brace patterns. Splits are read from the names of the tars. What the sidecars
    of an earlier time know and the tars do not is kept: the names of the classes, and those in the raw dataset. With
    a `target` other than one class, `label_from` names the field that holds it, as `json:tags`, or several. A
    `README.md` that imgdata did not write stays. `hash` is the hash of each tar in `dataset.json`, whatever hash it had
    before. `progress(done, total)` is called after every tar. Raises
    `SourceError`, `ShardError` or `OptionError`; then `dataset.json` is as it was before.
    """
    if hash not in HASH_KINDS:
        raise OptionError(f"hash must be {', '.join(HASH_KINDS[:-1])} or {HASH_KINDS[-1]}, got {hash!r}")
    patterns = [tars] if isinstance(tars, str | Path) else list(tars)
    for path in (*patterns, *([] if out is None else [out])):
        local_path(path)
    found = tar_set(list(dict.fromkeys(tar for pattern in patterns for tar in expand(pattern))))
    folder = _folder(found, Path(out) if out is not None else None)
    spec, label_from = target_of(target, label_from, found.manifest)
    extensions = tuple(ext.lower().lstrip(".") for ext in image_ext)
    source = _label_source(found, extensions, label_from)
    scans = list(
        in_threads(lambda tar: _scan(tar, extensions, source, hash), found.tars, workers=workers, progress=progress)
    )
    notes: list[str] = []
    texts = LabelReader(source)
    texts.texts = {text: 0 for scan in scans for text in scan.labels.texts}
    if label_from == "auto" and found.manifest is None and texts.hold_captions(sum(len(scan.table) for scan in scans)):
        scans, source = [_unlabelled(scan) for scan in scans], "none"
        notes.append(
            f"{len(texts.texts)} different texts in the txt members are captions, and no classes: images get no label; "
            "--label-from txt makes each a class"
        )
    named = label_from != "auto"
    _write(folder, found, scans, clean_title(name or found.title), source, notes, named=named, spec=spec)
    return open_dataset(folder)


def _folder(found: TarSet, out: Path | None) -> Path:
    folder = out or found.root
    outside = next((tar for tar in found.tars if os.path.abspath(tar.parent) != os.path.abspath(folder)), None)
    if outside is not None:
        raise OptionError(
            f"tars must be in the folder of their index, {folder}, got {outside}; "
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
    """Return where labels come from, by the first sample with an image, so that all shards are read alike."""
    if wanted == "auto" and found.manifest is not None:
        return found.manifest.label_from
    for tar in found.tars:
        with open_tar(tar) as file:
            for sample in tar_samples(tar):
                if image_member(sample, image_ext) is not None:
                    return choose_label_source(sample, file.fileno(), tar, wanted)
    wanted_images = f"with extension {', '.join(image_ext)}" if image_ext else "with a usual image extension"
    raise ShardError(f"{found.root}: no sample {wanted_images} in the tars; name it with --image-ext")


def _scan(tar: Path, image_ext: tuple[str, ...], source: str, hash: HashKind) -> _Scan:
    rows = _Rows(tar, LabelReader(source))
    contents = tar_contents(tar, image_ext)
    with open_tar(tar) as file:
        for sample, extension in contents.samples:
            end_if_stopped()
            rows.add(sample, extension, file.fileno())
        num_bytes = os.fstat(file.fileno()).st_size
    digest = file_hash(tar, hash)
    if not rows.members:
        raise ShardError(f"{tar}: no sample with an image in it; leave this tar out, or name it with --image-ext")
    write_dali_index(dali_index_path(tar), rows.members)
    return _Scan(
        record=ShardRecord(tar.name, len(rows.members), num_bytes, digest, hash),
        table=rows.table(),
        labels=rows.labels,
        extensions=rows.extensions,
        several=Counter() if image_ext else rows.several,
        columns=fields_table(rows.fields),
        bad_json=rows.bad_json,
        contents=replace(contents, samples=[]),
        bad=rows.bad,
        first_bad=rows.first_bad,
    )


def _source_in(fields: bytes) -> str:
    """Return the name in the raw dataset in a `json` member that `imgdata shard` wrote; empty for any other member."""
    if b'"source"' not in fields:
        return ""
    try:
        values = parse_json(fields)
        ours = isinstance(values["width"], int) and isinstance(values["height"], int)
        source = values["source"]
        # Arrow takes no halves of surrogate pairs; `imgdata shard` writes none.
        return source if ours and isinstance(source, str) and source.encode() else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _unlabelled(scan: _Scan) -> _Scan:
    """Return `scan` without its labels."""
    none = number_array(np.full(len(scan.table), -1, np.int32))
    return replace(scan, labels=LabelReader("none"), table=_with_column(scan.table, "label", none))


def _write(
    folder: Path,
    found: TarSet,
    scans: Sequence[_Scan],
    name: str,
    label_source: str,
    notes: Sequence[str],
    *,
    named: bool,
    spec: Target | None,
) -> None:
    manifest = found.manifest
    has_json = any(pc.any(pc.greater(scan.table["json_size"], 0)).as_py() for scan in scans)
    labels, tables, classes = _merge_labels(scans, label_source, manifest)
    if named:
        labels.check_found()
    tables = keep_sources(tables, folder, manifest)
    crop_ready = any(pc.any(pc.greater(table["restart_interval"], 0)).as_py() for table in tables)
    if manifest is not None and _is_own(manifest):
        crop_ready = crop_ready or bool(manifest.options.get("crop_ready"))
    names = index_schema(has_json=has_json, crop_ready=crop_ready).names
    splits = []
    for split in dict.fromkeys(found.splits):
        of_split = [i for i, name_of_tar in enumerate(found.splits) if name_of_tar == split]
        splits.append(
            SplitRecord(
                name=split,
                index_file=f"{name}-{split}.index.parquet",
                shards=tuple(scans[i].record for i in of_split),
                table=pa.concat_tables([tables[i].select(names) for i in of_split]),
                columns=_columns([scans[i] for i in of_split], label_source),
            )
        )
    extensions: Counter[str] = sum((scan.extensions for scan in scans), Counter())
    own = manifest is not None and _is_own(manifest)
    if manifest is not None and own:
        # What made the shards stays on record.
        options, source, rejected = manifest.options, manifest.source, manifest.rejected
    else:
        skipped = dict(sorted(sum((scan.contents.passed_over for scan in scans), Counter()).items()))
        hashes = "".join(scan.record.digest or str(scan.table["xxh64"].to_pylist()) for scan in scans)
        options, rejected = {"label_from": label_source}, 0
        source = {
            "kind": "index",
            "title": name,
            "fingerprint": xxhash.xxh3_128_hexdigest(hashes.encode()),
            "skipped": skipped,
            "warnings": [
                *_warnings(scans, splits),
                *missing_parts(scan.record.file for scan in scans),
                *contents_notes([(scan.record.file, scan.contents) for scan in scans]),
                *(
                    [f"passed over {', '.join(f'{count} {what}' for what, count in skipped.items())}"]
                    if skipped
                    else []
                ),
                *labels.warnings(),
                *notes,
            ],
        }
    if spec is not None:
        classes = classes_of(spec, [split.columns for split in splits], manifest)
    facts = Manifest(
        name=name,
        classes=classes,
        target=spec,
        image_extension=";".join(sorted(extensions, key=lambda ext: (-extensions[ext], ext))),
        label_from=label_source,
        has_json=has_json,
        rejected=rejected,
        options=options,
        source=source,
    )
    write_sidecars(folder, facts, splits, lists=(REJECTS, REPAIRS) if own else (), before=manifest)


def _columns(scans: Sequence[_Scan], label_source: str) -> pa.Table:
    """Return the fields of a split's tars; a `txt` member that is the label is none."""
    table = join_tables([scan.columns for scan in scans], [len(scan.table) for scan in scans])
    return table.drop_columns("txt") if label_source == "txt" and "txt" in table.column_names else table


def _is_own(manifest: Manifest) -> bool:
    """Return whether `imgdata shard` wrote the tars."""
    return manifest.source.get("kind") != "index"


def _merge_labels(
    scans: Sequence[_Scan], source: str, before: Manifest | None
) -> tuple[LabelReader, list[pa.Table], tuple[ClassName, ...]]:
    """Return the tables with one numbering for the labels of all tars."""
    merged = LabelReader(source)
    label_N = np.concatenate([merged.absorb(scan.labels, numbers(scan.table["label"])) for scan in scans])
    known: tuple[ClassName, ...] = ()
    # Read from another place, the same number is another class; a text that is the id of a class is that class.
    if before is not None and (before.label_from == source or (_is_own(before) and merged.texts)):
        known = before.classes
    label_N, classes = merged.finish(label_N, known)
    tables, start = [], 0
    for scan in scans:
        end = start + len(scan.table)
        tables.append(_with_column(scan.table, "label", number_array(label_N[start:end].astype(np.int32))))
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
    bad_json = sum(scan.bad_json for scan in scans)
    if bad_json:
        warnings.append(
            f"{bad_json} json members are no JSON, and their samples have no columns; `imgdata verify` them"
        )
    for split in splits:
        keys = [str(key) for key in split.table["key"].to_pylist()]
        repeated = duplicate_positions(keys)
        if repeated:
            warnings.append(f"{len(repeated)} keys of split {split.name} occur twice, the first is {keys[repeated[0]]}")
    return warnings
