"""A WebDataset tar -> its rows of the index, its labels and fields; its DALI index is written beside it."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import xxhash

from imgdata import native
from imgdata.arrow import column_array
from imgdata.dataset.fields import fields_table
from imgdata.dataset.index_schema import index_schema
from imgdata.dataset.manifest import HashKind
from imgdata.dataset.members import MemberKind, member_columns
from imgdata.errors import ImageError, ShardError
from imgdata.images.info import UNKNOWN
from imgdata.images.probe import probe
from imgdata.sample import fields_of
from imgdata.shards.hashing import file_hash
from imgdata.shards.parallel import end_if_stopped
from imgdata.shards.record import NO_MEMBER, MemberRow
from imgdata.shards.sidecars import DaliMember, ShardRecord, dali_index_path, write_dali_index
from imgdata.sources.tar_members import kind_in_tar
from imgdata.storage.file_names import escape_name
from imgdata.storage.reading import parse_json
from imgdata.tar.archive import open_tar, read_member
from imgdata.tar.labels import MAX_TEXT_BYTES, LabelReader
from imgdata.tar.samples import TarContents, TarSample, is_image, named_images, tar_contents


@dataclass(frozen=True, kw_only=True)
class TarScan:
    """The contents of one tar."""

    record: ShardRecord
    table: pa.Table
    """Rows of the index, with `JSON_FIELDS`, `CROP_READY_FIELDS` and the columns of `members`; labels as `labels`
    numbers them."""
    labels: LabelReader
    extensions: Counter[str]
    several: Counter[tuple[str, ...]]
    """Extensions of the images of samples that have several."""
    members: dict[str, tuple[str, MemberKind | None]]
    """Further images by name: the extension of the first, and what it is; None for one that is none."""
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
    further: dict[str, tuple[str, MemberKind | None]] = field(default_factory=dict)
    further_rows: dict[str, list[MemberRow]] = field(default_factory=dict)
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
        self._add_further(sample, extension, data, descriptor)
        self.fields.append(self._fields(sample, fields, descriptor))
        self.members.append([(ext, member.offset, member.size, member.name) for ext, member in sample.members.items()])
        self.extensions[extension] += 1
        images = tuple(ext for ext in sample.members if is_image(ext))
        if len(images) > 1:
            self.several[images] += 1

    def _add_further(self, sample: TarSample, extension: str, picture: bytes, descriptor: int) -> None:
        """Append the rows of the sample's further images; it comes behind the samples of `members`."""
        count = len(self.members)
        for name, other in named_images(sample, extension).items():
            member = sample.members[other]
            data = read_member(descriptor, member, self.tar)
            if name not in self.further:
                self.further[name] = other, kind_in_tar(name, picture, data)
            try:
                kind = probe(data).format
            except ImageError:
                kind = UNKNOWN.format
            rows = self.further_rows.setdefault(name, [])
            rows += [NO_MEMBER] * (count - len(rows))
            rows.append((member.offset, member.size, kind, xxhash.xxh64_intdigest(data)))

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
        columns: dict[str, Sequence[object]] = dict(self.columns)
        count = len(self.members)
        names = [name for name, (_, kind) in self.further.items() if kind is not None]
        for name in names:
            rows = self.further_rows[name] + [NO_MEMBER] * (count - len(self.further_rows[name]))
            columns |= zip(member_columns(name), zip(*rows, strict=True), strict=True)
        schema = index_schema(has_json=True, crop_ready=True, members=names)
        return pa.table([column_array(columns[column.name], column.type) for column in schema], schema=schema)


def scan_tar(tar: Path, image_ext: tuple[str, ...], source: str, hash: HashKind) -> TarScan:
    """Return the contents of a tar, whose images have an extension of `image_ext` or a usual one.

    `source` says where labels are, `hash` how the whole tar is hashed. Raises `ShardError`.
    """
    rows = _Rows(tar, LabelReader(source))
    try:
        contents = tar_contents(tar, image_ext)
        with open_tar(tar) as file:
            for sample, extension in contents.samples:
                end_if_stopped()
                rows.add(sample, extension, file.fileno())
            num_bytes = os.fstat(file.fileno()).st_size
        digest = file_hash(tar, hash)
    except OSError as error:
        raise ShardError(f"{tar}: can't be read: {error.strerror or error}") from error
    if not rows.members:
        raise ShardError(f"{tar}: no sample with an image in it; leave this tar out, or name it with --image-ext")
    write_dali_index(dali_index_path(tar), rows.members)
    return TarScan(
        record=ShardRecord(tar.name, len(rows.members), num_bytes, digest, hash),
        table=rows.table(),
        labels=rows.labels,
        extensions=rows.extensions,
        members=rows.further,
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
