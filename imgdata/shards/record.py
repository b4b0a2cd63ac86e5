"""What is remembered of each finished shard until the whole dataset is finished."""

import json
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from imgdata.arrow import column_array
from imgdata.dataset.index_schema import index_schema
from imgdata.dataset.manifest import HashKind
from imgdata.dataset.members import member_columns
from imgdata.errors import ShardError
from imgdata.images.info import ImageInfo
from imgdata.sample import SampleRef
from imgdata.storage.atomic import JOB_FOLDER, write_atomic

_RECORD_VERSION = 1

MemberRow = tuple[int, int, str, int]
"""Offset, size, format and xxh64 of a further image."""
NO_MEMBER: MemberRow = (0, 0, "", 0)
"""What the index has of a sample without the image."""


@dataclass(frozen=True, slots=True)
class Reject:
    """An image that was left out."""

    split: str
    source: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Repair:
    """An image whose pixels were re-encoded because its form was odd."""

    split: str
    key: str
    source: str
    repaired: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on several images."""

    text: str
    first: str
    """Source name of the first of them."""
    images: int
    """Number of these images."""

    def again(self) -> "Note":
        """Return the note with one more image."""
        return Note(self.text, self.first, self.images + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """The facts of one finished shard; `samples` 0 and no tar when every image was bad."""

    file: str
    split: str
    samples: int
    bytes: int
    digest: str
    """Hash of the tar in hexadecimal; empty without a tar, and where `hash` is `none`."""
    hash: HashKind = "sha256"
    rejects: tuple[Reject, ...] = ()
    repairs: tuple[Repair, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass
class ShardRows:
    """The index rows of one shard while it is written, as columns."""

    refs: list[SampleRef] = field(default_factory=list)
    infos: list[ImageInfo] = field(default_factory=list)
    offset: "array[int]" = field(default_factory=lambda: array("q"))
    size: "array[int]" = field(default_factory=lambda: array("q"))
    xxh64: "array[int]" = field(default_factory=lambda: array("Q"))
    names: list[str] = field(default_factory=list)
    """Names of the members of each sample, a zero behind each name."""
    places: "array[int]" = field(default_factory=lambda: array("q"))
    """Offset of the first data byte and size of each member, one member after the other."""
    dali: list[str] = field(default_factory=list)
    """Line of each sample in DALI's index."""
    json: list[tuple[int, int, int]] = field(default_factory=list)
    """Offset, size and xxh64 of the bytes of each sample's `json` member; empty without one."""

    crop_ready: list[tuple[int, int]] = field(default_factory=list)
    """Restart interval and hash of the raw bytes of each sample; empty where images are not made crop-ready."""
    member_names: tuple[str, ...] = ()
    """Names of the further images of the samples."""
    members: list[list[MemberRow]] = field(default_factory=list)
    """Rows of the further images of each sample, in the order of their names; empty where there are none."""

    def __len__(self) -> int:
        return len(self.refs)

    def add(self, ref: SampleRef, info: ImageInfo, offset: int, size: int, xxh64: int) -> None:
        """Append the row of one sample, whose image has `size` bytes from `offset` on."""
        self.refs.append(ref)
        self.infos.append(info)
        self.offset.append(offset)
        self.size.append(size)
        self.xxh64.append(xxh64)

    def table(self, file: str) -> pa.Table:
        """Return the rows as a table of `index_schema`."""
        columns: dict[str, Sequence[object]] = {
            "key": [ref.key for ref in self.refs],
            "shard": [file] * len(self),
            "offset": self.offset,
            "size": self.size,
            "label": [ref.label for ref in self.refs],
            "width": [info.width for info in self.infos],
            "height": [info.height for info in self.infos],
            "mode": [info.mode for info in self.infos],
            "format": [info.format for info in self.infos],
            "orientation": [info.orientation for info in self.infos],
            "xxh64": self.xxh64,
            "source": [ref.name for ref in self.refs],
        }
        if self.json:
            for number, name in enumerate(("json_offset", "json_size", "json_xxh64")):
                columns[name] = [member[number] for member in self.json]
        if self.crop_ready:
            columns["restart_interval"], columns["original_xxh64"] = zip(*self.crop_ready, strict=True)
        names = self.member_names if self.members else ()
        for number, name in enumerate(names):
            of_name = [row[number] for row in self.members]
            columns |= zip(member_columns(name), zip(*of_name, strict=True), strict=True)
        schema = index_schema(has_json=bool(self.json), crop_ready=bool(self.crop_ready), members=names)
        return pa.table([column_array(columns[column.name], column.type) for column in schema], schema=schema)


def job_folder(folder: Path) -> Path:
    """Return the folder where an unfinished dataset keeps its plan, its records and everything temporary."""
    return folder / JOB_FOLDER


def record_path(folder: Path, file: str) -> Path:
    """Return the path of the record of the shard `file`."""
    return job_folder(folder) / f"{file}.record"


def write_record(folder: Path, report: ShardReport, rows: ShardRows) -> None:
    """Save the report and the index rows of one shard: an Arrow file with the report as metadata."""
    values = {"version": _RECORD_VERSION, **asdict(report)}
    table = rows.table(report.file).replace_schema_metadata({"report": json.dumps(values)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomic(record_path(folder, report.file), sink.getvalue())


def read_record(folder: Path, file: str, *, need_tar: bool = True) -> ShardReport | None:
    """Return the report of a finished shard; None when it has no record, or no tar to go with the record."""
    path = record_path(folder, file)
    if not path.exists():
        return None
    report = _report(_open_record(path), str(path))
    tar = folder / file
    if need_tar and report.samples and not (tar.exists() and tar.stat().st_size == report.bytes):
        return None
    return report


def parse_record(data: bytes, place: str) -> ShardReport:
    """Return the report in the bytes of a record; `place` is named in errors. Raises `ShardError`."""
    try:
        return _report(pa.ipc.open_file(pa.BufferReader(data)), place)
    except pa.ArrowInvalid as error:
        raise ShardError(f"{place}: damaged; delete it and run the same command again") from error


def _report(record: pa.ipc.RecordBatchFileReader, place: str) -> ShardReport:
    values = json.loads(record.schema.metadata[b"report"])
    if values.pop("version") != _RECORD_VERSION:
        raise ShardError(f"{place}: written by another version of imgdata; start again with --overwrite")
    # Until 0.1 a record had no other hash.
    if "sha256" in values:
        values["digest"] = values.pop("sha256")
    return ShardReport(
        **values
        | {
            "rejects": tuple(Reject(**reject) for reject in values["rejects"]),
            "repairs": tuple(Repair(**{**r, "repaired": tuple(r["repaired"])}) for r in values["repairs"]),
            "notes": tuple(Note(**note) for note in values.get("notes", ())),
        }
    )


def read_rows(folder: Path, file: str) -> pa.Table:
    """Return the index rows of a finished shard, memory-mapped."""
    return _open_record(record_path(folder, file)).read_all().replace_schema_metadata(None)


def _open_record(path: Path) -> pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid as error:
        raise ShardError(f"{path}: damaged; delete it and run the same command again") from error
