"""A plan <-> one file in the job folder, from which any machine reads the shards that it writes, and nothing else.

The file is an Arrow table of the listing in the order of the shards, with one batch of rows for each shard. Whoever
writes a shard reads its batch alone: the memory of a part does not grow with the dataset. Facts of the whole plan, and
the reader of the images, are in the metadata. Paths are absolute: the source has the same place on all machines.
"""

import io
import os
import pickle
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from imgdata.arrow import number_array, numbers
from imgdata.dataset.members import Member
from imgdata.dataset.target import Target
from imgdata.errors import OutputError
from imgdata.images.encode import encoder
from imgdata.sample import ClassName, SampleRef
from imgdata.shards.frozen_members import frozen_columns, frozen_refs, is_member_column, thawed_columns
from imgdata.shards.options import ShardOptions
from imgdata.shards.plan import Plan, ShardTask, SplitPlan, shard_file
from imgdata.sources.listing import Listing, Reader
from imgdata.storage.atomic import whole_file
from imgdata.storage.local_paths import UrlPath, any_path
from imgdata.version import __version__

_FACTS = b"imgdata.plan"
_TEXTS = ("name", "key", "fields")


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """All of a frozen plan but the samples."""

    plan_id: str
    """Random name: a plan that is made anew has another one."""
    imgdata: str
    """Version of imgdata that made the plan."""
    encoder: str | None
    """What encodes images, with versions; None where images are stored as they are."""
    source: str
    """The raw dataset, as a path from the root, or `synthetic:...`."""
    identity: Mapping[str, Any]
    state: str
    """State of the source's files."""
    name: str
    extension: str
    options: ShardOptions
    reader: Reader
    is_exact: bool
    splits: tuple[tuple[str, tuple[int, ...], int], ...]
    """Name, samples of each shard, and estimated bytes of each split."""
    title: str
    kind: str
    classes: tuple[ClassName, ...]
    has_fields: bool
    target: Target | None
    names: Mapping[str, tuple[str, ...]]
    skipped: Mapping[str, int]
    warnings: tuple[str, ...]
    members: tuple[Member, ...] = ()
    """Further images of the samples."""
    required: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Names of the members that each sample of a split must have, by split."""


def freeze(plan: Plan, path: Path, *, source: str, identity: Mapping[str, Any], state: str) -> str:
    """Write `plan` to `path`, whole or not at all; returns the id of the plan. Raises `OutputError`.

    The states of the listing must be those without inodes.
    """
    listing, options = plan.listing, plan.options
    ends = [np.append(split.start_K[1:], len(split.row_N)) for split in plan.splits]
    counts = [tuple((end_K - split.start_K).tolist()) for end_K, split in zip(ends, plan.splits, strict=True)]
    facts = PlanFacts(
        plan_id=secrets.token_hex(8),
        imgdata=__version__,
        encoder=encoder() if options.encodes else None,
        source=source,
        identity=identity,
        state=state,
        name=plan.name,
        extension=plan.extension,
        options=options,
        reader=listing.reader,
        is_exact=plan.is_exact,
        splits=tuple(
            (split.name, count, split.estimated_bytes) for split, count in zip(plan.splits, counts, strict=True)
        ),
        title=listing.title,
        kind=listing.kind,
        classes=listing.classes,
        has_fields=listing.has_fields,
        target=listing.target,
        names=dict(listing.names),
        skipped=dict(listing.skipped),
        warnings=listing.warnings,
        members=plan.members,
        required={split.name: listing.required(split.name) for split in plan.splits},
    )
    row_N = np.concatenate([split.row_N for split in plan.splits])
    columns = {**_columns(listing, row_N), **frozen_columns(listing, row_N)}
    schema = pa.schema([(name, column.type) for name, column in columns.items()], {_FACTS: _packed(facts)})
    table = pa.table(columns, schema=schema)
    with whole_file(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        start = 0
        for count in (count for of_split in counts for count in of_split):
            writer.write_table(table.slice(start, count).combine_chunks())
            start += count
    return facts.plan_id


def _columns(listing: Listing, row_N: NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
    """Return the columns of the listing in the order of `row_N`."""
    row = number_array(row_N)
    texts: dict[str, pa.ChunkedArray | None] = {
        "name": listing.name_N,
        "key": listing.key_N,
        "fields": listing.fields_N,
    }
    values: dict[str, NDArray[Any]] = {
        "label": listing.label_N,
        "size": listing.size_N,
        "container": listing.container_N,
        "offset": listing.offset_N,
    }
    if listing.state_N is not None:
        values["state"] = listing.state_N
    # Large strings: all names together may have more than 2 GiB.
    columns = {name: column.cast(pa.large_string()).take(row) for name in _TEXTS if (column := texts[name]) is not None}
    return columns | {name: pa.chunked_array([number_array(column_N[row_N])]) for name, column_N in values.items()}


class FrozenPlan:
    """A plan that is read from its file, a shard at a time."""

    def __init__(self, facts: PlanFacts, batches: pa.ipc.RecordBatchFileReader) -> None:
        self.facts = facts
        self._batches = batches

    @property
    def num_shards(self) -> int:
        """Shards of all splits."""
        return len(self.shard_samples)

    @cached_property
    def shard_samples(self) -> NDArray[np.int64]:
        """Samples of each shard, int64 `(K,)`."""
        return np.array([count for _, counts, _ in self.facts.splits for count in counts], np.int64)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """File names of all shards, in order."""
        name = self.facts.name
        return tuple(shard_file(name, split, k) for split, counts, _ in self.facts.splits for k in range(len(counts)))

    def task(self, number: int, folder: Path) -> ShardTask:
        """Return the task of the shard at position `number`, to be written in `folder`."""
        facts = self.facts
        batch = self._batches.get_batch(number)
        columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
        filled = {"fields": [""] * len(batch), "state": [0] * len(batch)} | columns
        filled["members"] = frozen_refs(columns, facts.members) or [()] * len(batch)
        refs = map(SampleRef, *(filled[name] for name in SampleRef.__match_args__))
        return ShardTask(
            folder=folder,
            file=self.files[number],
            split=self._splits[number],
            refs=tuple(refs),
            reader=facts.reader,
            options=facts.options,
            extension=facts.extension,
            json_classes=facts.classes if facts.options.json_members or facts.has_fields else None,
            inodes=False,
            members=facts.members,
            required=facts.required.get(self._splits[number], frozenset()),
        )

    @cached_property
    def _splits(self) -> list[str]:
        return [split for split, counts, _ in self.facts.splits for _ in counts]

    def plan(self) -> Plan:
        """Return the whole plan, with its listing in memory."""
        facts = self.facts
        table = self._batches.read_all()
        splits, row_N = [], np.arange(len(table), dtype=np.int64)
        split_N = np.empty(len(table), np.uint8)
        first = 0
        for number, (name, counts, estimated_bytes) in enumerate(facts.splits):
            samples = sum(counts)
            start_K = np.cumsum([0, *counts[:-1]], dtype=np.int64)
            splits.append(SplitPlan(name, row_N[first : first + samples], start_K, estimated_bytes))
            split_N[first : first + samples] = number
            first += samples
        texts = {name: table[name].cast(pa.string()) for name in _TEXTS if name in table.column_names}
        values = {
            name: numbers(table[name])
            for name in table.column_names
            if name not in _TEXTS and not is_member_column(name)
        }
        listing = Listing(
            title=facts.title,
            kind=facts.kind,
            reader=facts.reader,
            classes=facts.classes,
            splits=tuple(name for name, _, _ in facts.splits),
            split_N=split_N,
            label_N=values["label"],
            size_N=values["size"],
            container_N=values["container"],
            offset_N=values["offset"],
            name_N=texts["name"],
            key_N=texts["key"],
            fields_N=texts.get("fields"),
            state_N=values.get("state"),
            members=thawed_columns(table, facts.members),
            skipped=facts.skipped,
            warnings=facts.warnings,
            target=facts.target,
            names=facts.names,
        )
        return Plan(facts.name, listing, facts.options, facts.extension, tuple(splits), facts.is_exact)


def open_frozen(path: Path) -> FrozenPlan | None:
    """Return the plan in the file `path`; None when there is no such file. Raises `OutputError` for a damaged one."""
    try:
        return _opened(pa.memory_map(str(path)), str(path))
    except FileNotFoundError:
        return None


def open_frozen_at(file: io.RawIOBase, place: str) -> FrozenPlan:
    """Return the plan in a file object, which is read as rows are asked for. Raises `OutputError` for a damaged one."""
    return _opened(pa.PythonFile(file, mode="r"), place)


def _opened(file: pa.NativeFile, place: str) -> FrozenPlan:
    try:
        batches = pa.ipc.open_file(file)
        return FrozenPlan(_unpacked(batches.schema.metadata[_FACTS]), batches)
    except (pa.ArrowInvalid, KeyError, TypeError, pickle.UnpicklingError, EOFError, AttributeError) as error:
        raise OutputError(
            f"{place}: damaged, or of another version of imgdata; run `imgdata shard ... --plan` again"
        ) from error


class _Packer(pickle.Pickler):
    """Writer of settings whose paths become absolute."""

    def persistent_id(self, obj: Any) -> str | None:
        if isinstance(obj, UrlPath):
            return str(obj)
        return os.path.abspath(obj) if isinstance(obj, PurePath) else None


class _Unpacker(pickle.Unpickler):
    """Reader of settings: paths, and classes of imgdata. Nothing else is called, whatever the file holds."""

    def persistent_load(self, pid: Any) -> Path:
        return any_path(pid)

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name.startswith("imgdata.") and global_name.isidentifier():
            found = super().find_class(module_name, global_name)
            if isinstance(found, type) and found.__module__ == module_name:
                return found
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no class of imgdata")


def _packed(facts: PlanFacts) -> bytes:
    file = io.BytesIO()
    _Packer(file, protocol=pickle.HIGHEST_PROTOCOL).dump(facts)
    return file.getvalue()


def _unpacked(data: bytes) -> PlanFacts:
    facts = _Unpacker(io.BytesIO(data)).load()
    if not isinstance(facts, PlanFacts):
        raise pickle.UnpicklingError(f"{type(facts).__name__} is no plan")
    return facts
