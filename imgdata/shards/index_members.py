"""Scans of tars -> the further images that all of their samples may have, and tables with the same columns for them."""

from collections.abc import Sequence

import pyarrow as pa

from imgdata.arrow import column_array
from imgdata.dataset.index_schema import member_fields
from imgdata.dataset.manifest import Manifest
from imgdata.dataset.members import Member, MemberKind, member_columns, members_in
from imgdata.shards.record import NO_MEMBER
from imgdata.shards.scan_tar import TarScan


def members_of(scans: Sequence[TarScan], before: Manifest | None) -> tuple[Member, ...]:
    """Return the further images, in the order of their names: those that fit the picture in every tar that has them.

    The sidecars of an earlier time know what they are.
    """
    known = {} if before is None else {one.name: one.kind for one in before.members}
    found = []
    for name in sorted({name for scan in scans for name in scan.members}):
        kinds = {scan.members[name][1] for scan in scans if name in scan.members}
        if None not in kinds:
            kind: MemberKind = known.get(name, "mask" if kinds == {"mask"} else "image")
            found.append(Member(name=name, kind=kind))
    return tuple(found)


def extensions_of(scans: Sequence[TarScan], members: Sequence[Member]) -> set[str]:
    """Return the extensions in the tars of these further images."""
    names = {one.name for one in members}
    return {extension for scan in scans for name, (extension, _) in scan.members.items() if name in names}


def with_members(table: pa.Table, members: Sequence[Member]) -> pa.Table:
    """Return the table of a tar with the columns of all `members`, also of those that none of its samples has."""
    there = members_in(table.column_names)
    for member in members:
        if member.name in there:
            continue
        for column, field, value in zip(
            member_columns(member.name), member_fields(member.name), NO_MEMBER, strict=True
        ):
            table = table.append_column(field.with_name(column), column_array([value] * len(table), field.type))
    return table
