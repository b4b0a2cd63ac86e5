"""WebDataset tars made elsewhere -> index and sidecars beside them; the tars stay as they are."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from imgdata.arrow import number_array, numbers
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.dataset import open as open_dataset
from imgdata.dataset.fields import join_tables
from imgdata.dataset.index_schema import index_schema
from imgdata.dataset.manifest import HASH_KINDS, HashKind, Manifest, SplitEntry
from imgdata.dataset.target import Target, TargetKind
from imgdata.errors import OptionError, ShardError
from imgdata.sample import ClassName
from imgdata.shards.dataset_files import REJECTS, REPAIRS, list_file
from imgdata.shards.index_members import extensions_of, members_of, with_members
from imgdata.shards.index_targets import classes_of, target_of
from imgdata.shards.index_versions import index_name, write_versions
from imgdata.shards.kept_sources import keep_sources, with_column
from imgdata.shards.parallel import in_threads
from imgdata.shards.scan_tar import TarScan, scan_tar
from imgdata.shards.sidecars import (
    SplitRecord,
    dali_index_path,
    write_sidecars,
)
from imgdata.shards.table_spool import TableSpool
from imgdata.sources.listing import clean_title
from imgdata.sources.parts import missing_parts
from imgdata.sources.tar_members import other_images
from imgdata.sources.tars import TarSet, expand, refuse_gzip, tar_set
from imgdata.storage.atomic import JOB_FOLDER, output_error
from imgdata.storage.local_paths import local_path
from imgdata.tar.archive import open_tar
from imgdata.tar.keys import equal_before, key_hashes
from imgdata.tar.labels import LabelReader, choose_label_source
from imgdata.tar.samples import (
    contents_notes,
    image_member,
    several_images_warning,
    tar_samples,
)


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
    `SourceError`, `ShardError`, `OptionError` or `OutputError`; then `dataset.json` is as it was before.
    """
    if hash not in HASH_KINDS:
        raise OptionError(f"hash must be {', '.join(HASH_KINDS[:-1])} or {HASH_KINDS[-1]}, got {hash!r}")
    patterns = [tars] if isinstance(tars, str | Path) else list(tars)
    for path in (*patterns, *([] if out is None else [out])):
        local_path(path)
    paths = list(dict.fromkeys(tar for pattern in patterns for tar in expand(pattern)))
    for path in paths:
        refuse_gzip(path)
    found = tar_set(paths)
    folder = _folder(found, Path(out) if out is not None else None)
    spec, label_from = target_of(target, label_from, found.manifest)
    extensions = tuple(ext.lower().lstrip(".") for ext in image_ext)
    source = _label_source(found, extensions, label_from)
    scans = _scanned(
        folder,
        in_threads(lambda tar: scan_tar(tar, extensions, source, hash), found.tars, workers=workers, progress=progress),
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
    try:
        _write(folder, found, scans, clean_title(name or found.title), source, notes, named=named, spec=spec)
    except OSError as error:
        place = error.filename if isinstance(error.filename, str | os.PathLike) else folder
        raise output_error(error, Path(place)) from error
    return open_dataset(folder)


def _scanned(folder: Path, found: Iterable[TarScan]) -> list[TarScan]:
    """Return the scans with their rows and fields in files without a name, in the folder."""
    scans = []
    with TableSpool(folder) as rows, TableSpool(folder) as columns:
        for scan in found:
            rows.add(scan.table)
            columns.add(scan.columns)
            empty = scan.table.schema.empty_table()
            scans.append(replace(scan, table=empty, columns=scan.columns.schema.empty_table()))
        parts = zip(scans, rows.tables(), columns.tables(), strict=True)
        return [replace(scan, table=table, columns=fields) for scan, table, fields in parts]


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


def _unlabelled(scan: TarScan) -> TarScan:
    """Return `scan` without its labels."""
    none = number_array(np.full(len(scan.table), -1, np.int32))
    return replace(scan, labels=LabelReader("none"), table=with_column(scan.table, "label", none))


def _write(
    folder: Path,
    found: TarSet,
    scans: Sequence[TarScan],
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
    members = members_of(scans, manifest)
    tables = [with_members(table, members) for table in tables]
    names = index_schema(has_json=has_json, crop_ready=crop_ready, members=[one.name for one in members]).names
    splits = []
    for split in dict.fromkeys(found.splits):
        of_split = [i for i, name_of_tar in enumerate(found.splits) if name_of_tar == split]
        splits.append(
            SplitRecord(
                name=split,
                index_file=index_name(manifest, split, f"{name}-{split}.index.parquet"),
                shards=tuple(scans[i].record for i in of_split),
                tables=[tables[i].select(names) for i in of_split],
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
                *_warnings(scans, splits, extensions_of(scans, members)),
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
        members=members,
        rejected=rejected,
        options=options,
        source=source,
    )
    lists: list[str] = []
    indices: dict[str, SplitEntry] = {}
    if manifest is not None and manifest.versions:
        versions, lists, indices = write_versions(folder, manifest, splits)
        facts = replace(facts, versions=versions)
    if own:
        lists += [list_file(one, number) for one in (REJECTS, REPAIRS) for number in range(1, facts.version + 1)]
    write_sidecars(folder, facts, splits, lists=lists, before=manifest, indices=indices)


def _columns(scans: Sequence[TarScan], label_source: str) -> pa.Table:
    """Return the fields of a split's tars; a `txt` member that is the label is none."""
    table = join_tables([scan.columns for scan in scans], [len(scan.table) for scan in scans])
    return table.drop_columns("txt") if label_source == "txt" and "txt" in table.column_names else table


def _is_own(manifest: Manifest) -> bool:
    """Return whether `imgdata shard` wrote the tars."""
    return manifest.source.get("kind") != "index"


def _merge_labels(
    scans: Sequence[TarScan], source: str, before: Manifest | None
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
        tables.append(with_column(scan.table, "label", number_array(label_N[start:end].astype(np.int32, copy=False))))
        start = end
    return merged, tables, classes


def _warnings(scans: Sequence[TarScan], splits: Sequence[SplitRecord], further: set[str]) -> list[str]:
    warnings = several_images_warning(other_images(sum((scan.several for scan in scans), Counter()), further))
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
        tables = list(split.tables)
        repeated = equal_before(np.concatenate([key_hashes(table["key"].to_pylist()) for table in tables]))
        if repeated:
            first = pa.concat_tables([table.select(["key"]) for table in tables])["key"][repeated[0]]
            warnings.append(f"{len(repeated)} keys of split {split.name} occur twice, the first is {first}")
    return warnings
