"""A dataset, a whole append in its job folder -> the dataset's next version.

    index and columns of the new version written under names of their own  ->  tars moved in behind the others
    ->  dataset.json replaced  ->  sidecars that have one name for all versions rewritten  ->  append removed

Nothing that an earlier version reads is changed, and until dataset.json is replaced the dataset is the version before.
Each step can be interrupted anywhere and repeated; every run that writes to the folder ends an append that is whole.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from imgdata.arrow import column_array
from imgdata.dataset.columns import columns_file, write_columns
from imgdata.dataset.dataset import Dataset
from imgdata.dataset.fields import join_tables
from imgdata.dataset.index import Index, index_id
from imgdata.dataset.manifest import MANIFEST, IndexParts, Manifest, ShardRecord, SplitEntry, read_manifest
from imgdata.dataset.split import Split, open_index
from imgdata.dataset.versions import SplitVersion, Version
from imgdata.errors import ShardError
from imgdata.shards.card import CARD
from imgdata.shards.dataset_files import REJECTS, REPAIRS, list_file
from imgdata.shards.job_folder import JobFolder
from imgdata.shards.plan import shard_file
from imgdata.shards.sidecars import dali_index_path, is_of_others, sidecar_files, write_any_index
from imgdata.shards.source_states import read_states, write_states
from imgdata.shards.standing import is_begun
from imgdata.storage.atomic import output_error, sync_folder, write_atomic
from imgdata.storage.folder import DatasetFolder
from imgdata.storage.reading import file_sha256
from imgdata.version import __version__


def complete_append(job: JobFolder) -> None:
    """Put an append that is whole into the dataset of the output folder, and remove what is left of one that ended.

    An append that was begun and is not whole stays. Raises `OutputError`, `ShardError`.
    """
    part = job.append
    if not part.exists() or is_begun(part):
        return
    if (part / MANIFEST).exists():
        before, added = read_manifest(job.out), read_manifest(part)
        merged = any((one.options, one.source) == (added.options, added.source) for one in before.versions[1:])
        manifest = before if merged else _merge(job, before, added)
        for name, data in sidecar_files(manifest).items():
            # A README.md that someone edited is not in the list.
            if name in manifest.files:
                write_atomic(job.out / name, data)
    shutil.rmtree(part)


def _merge(job: JobFolder, before: Manifest, added: Manifest) -> Manifest:
    """Write all files of the next version, `dataset.json` last but for other sidecars; return its manifest."""
    out, part, number = job.out, job.append, before.version + 1
    old, new = Dataset(DatasetFolder(out), before), Dataset(DatasetFolder(part), added)
    entries, lists = [], []
    for name in dict.fromkeys([*old, *new]):
        known = [entry for entry in before.splits if entry.name == name]
        if name not in new:
            entries += known
            continue
        shards = next(entry for entry in added.splits if entry.name == name).shards
        first = sum(len(entry.shards) for entry in known)
        moved = [
            dataclasses.replace(shard, file=shard_file(before.name, name, first + place))
            for place, shard in enumerate(shards)
        ]
        splits = [dataset[name] for dataset in (old, new) if name in dataset]
        file = f"{before.name}-{name}.v{number}.index.parquet"
        before_shards = [shard for entry in known for shard in entry.shards]
        renamed = dict(zip([one.file for one in shards], moved, strict=True))
        parts = known[0].parts if known else None
        entry, columns = _write_index(out, file, splits, renamed, [*before_shards, *moved], parts)
        entries.append(entry)
        lists += columns
        _move(part, out, shards, moved)
    for name in (REJECTS, REPAIRS):
        if (part / name).exists():
            lists.append(list_file(name, number))
            write_atomic(out / lists[-1], (part / name).read_bytes())
    sync_folder(out)
    files = {name: digest for name, digest in before.files.items() if name not in sidecar_files(before)}
    files |= {name: file_sha256(out / name) for name in lists}
    manifest = dataclasses.replace(_next(out, before, added, entries), files=files)
    written = sidecar_files(manifest)
    if is_of_others(out / CARD, written[CARD], before):
        del written[CARD]
    files |= {name: hashlib.sha256(data).hexdigest() for name, data in written.items()}
    manifest = dataclasses.replace(manifest, files=dict(sorted(files.items())))
    states, state = read_states(out / MANIFEST), read_states(part / MANIFEST).get(1)
    write_atomic(out / MANIFEST, manifest.to_bytes())
    write_states(out / MANIFEST, states if state is None else {**states, number: state})
    return manifest


def _write_index(
    out: Path,
    file: str,
    splits: Sequence[Split],
    moved: dict[str, ShardRecord],
    shards: Sequence[ShardRecord],
    parts: IndexParts | None,
) -> tuple[SplitEntry, list[str]]:
    """Write the index `file` with the rows of the split before, if it was there, and of what is added.

    Return the entry of the split, whose tars are `shards`, and the names of further files that were written: that of
    the columns. `moved` are the new tars by their names in the append; `parts` is the index before, where it is in
    parts: they stay, and the new rows become further ones.
    """
    tables = [_rows(split.index) for split in (splits if parts is None else splits[-1:])]
    names = [moved[str(word)].file for word in tables[-1]["shard"].cast(pa.string()).to_pylist()]
    place = tables[-1].schema.get_field_index("shard")
    field = tables[-1].schema.field(place)
    tables[-1] = tables[-1].set_column(place, field, column_array(names, field.type))
    entry = write_any_index(out, splits[-1].name, file, shards, tables, before=parts)
    if entry.parts is not None:
        # Of so many samples no columns are read.
        return entry, []
    columns = [split.columns.table() for split in splits]
    if not any(table.num_columns for table in columns):
        return entry, []
    name = columns_file(file)
    write_columns(out / name, join_tables(columns, [len(table) for table in tables]))
    return entry, [name]


def _rows(index: Index) -> pa.Table:
    index.load(index.names)
    return pa.table([index.column(name) for name in index.names], names=index.names)


def _move(part: Path, out: Path, shards: Sequence[ShardRecord], moved: Sequence[ShardRecord]) -> None:
    """Move tars and their DALI indices into the dataset; those that an interrupted run moved are there already."""
    for shard, to in zip(shards, moved, strict=True):
        for source, target in (
            (part / shard.file, out / to.file),
            (dali_index_path(part / shard.file), dali_index_path(out / to.file)),
        ):
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(source, target)
            except OSError as error:
                raise output_error(error, target) from error
        if not (out / to.file).exists():
            raise ShardError(
                f"{out / to.file}: missing, and it is not in {part} either; delete that folder, and append again"
            )


def _next(out: Path, before: Manifest, added: Manifest, entries: Sequence[SplitEntry]) -> Manifest:
    """Return the manifest of the next version, but for the hashes of its sidecars."""
    versions = before.versions or (_version(out, before, before.splits, before.rejected),)
    rejected = before.rejected + added.rejected
    skipped = Counter(before.source.get("skipped", {})) + Counter(added.source.get("skipped", {}))
    warnings = [*before.source.get("warnings", ()), *added.source.get("warnings", ())]
    return dataclasses.replace(
        before,
        classes=added.classes,
        splits=tuple(entries),
        rejected=rejected,
        imgdata=__version__,
        source={**before.source, "skipped": dict(sorted(skipped.items())), "warnings": list(dict.fromkeys(warnings))},
        versions=(*versions, _version(out, added, entries, rejected)),
    )


def _version(out: Path, run: Manifest, entries: Sequence[SplitEntry], rejected: int) -> Version:
    return Version(
        splits={
            entry.name: SplitVersion(
                index=entry.index,
                index_sha256=entry.index_sha256,
                shards=len(entry.shards),
                samples=entry.samples,
                fingerprint=index_id(open_index(DatasetFolder(out), entry)),
            )
            for entry in entries
        },
        classes=len(run.classes),
        rejected=rejected,
        options=run.options,
        source=run.source,
    )
