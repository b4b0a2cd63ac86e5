"""Finished shards + their records -> the sidecars that make them a dataset."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdata.arrow import column_array, number_array
from imgdata.dataset.fields import fields_table
from imgdata.dataset.manifest import Manifest
from imgdata.errors import SourceError
from imgdata.images.encode import extension_of
from imgdata.shards.dataset_files import REJECTS, REPAIRS
from imgdata.shards.job_folder import JobFolder
from imgdata.shards.part_files import close_parts
from imgdata.shards.plan import Plan, shard_file
from imgdata.shards.record import Reject, Repair, ShardReport, read_rows
from imgdata.shards.sidecars import ShardRecord, SplitRecord, write_sidecars
from imgdata.shards.summary import ShardSummary, reasons, split_totals
from imgdata.sources.classes import distinct
from imgdata.sources.listing import Listing
from imgdata.storage.atomic import output_error, sync_folder, write_atomic
from imgdata.tar.archive import members

_MAX_NOTES = 10
"""Kinds of notes on single images that are printed."""


def finish(job: JobFolder, plan: Plan, reports: Sequence[ShardReport], identity: Mapping[str, Any]) -> tuple[str, ...]:
    """Write every sidecar of the dataset, `dataset.json` last, and end the job.

    `reports` has one entry for each planned shard, in order. Returns the warnings. The call can be
    interrupted at any point and repeated.
    """
    out = job.folder
    splits = []
    figures = {}
    for split in plan.splits:
        of_split = [report for report in reports if report.split == split.name]
        accounted = sum(report.samples + len(report.rejects) for report in of_split)
        assert accounted == len(split.row_N), f"{split.name}: {accounted} of {len(split.row_N)} samples accounted for"
        kept = [report for report in of_split if report.samples]
        if not kept:
            first = of_split[0].rejects[0]
            raise SourceError(
                f"split {split.name}: not one of its {len(split.row_N)} images can be used "
                f"(the first: {first.source}: {first.detail}); mend them and start afresh with --overwrite"
            )
        files = _close_gaps(job, plan.name, split.name, kept)
        tables = _Records(out, [report.file for report in kept], files)
        figures[split.name] = _figures(tables)
        splits.append(
            SplitRecord(
                name=split.name,
                index_file=f"{plan.name}-{split.name}.index.parquet",
                shards=tuple(
                    ShardRecord(file, report.samples, report.bytes, report.digest, report.hash)
                    for report, file in zip(kept, files, strict=True)
                ),
                tables=tables,
                columns=_columns(plan.listing, split.row_N, tables),
            )
        )
    rejects = [reject for report in reports for reject in report.rejects]
    repairs = [repair for report in reports for repair in report.repairs]
    _write_lines(out / REJECTS, rejects)
    _write_lines(out / REPAIRS, repairs)
    warnings = (*plan.listing.warnings, *_warnings(plan, figures), *_notes(reports))
    facts = Manifest(
        name=plan.name,
        classes=plan.listing.classes,
        image_extension=plan.extension,
        label_from="cls" if bool((plan.listing.label_N >= 0).any()) else "none",
        has_json=plan.has_json,
        members=plan.members,
        target=plan.listing.target,
        rejected=len(rejects),
        options=identity["options"],
        source={
            **identity["source"],
            "title": plan.listing.title,
            "skipped": dict(plan.listing.skipped),
            "warnings": list(warnings),
        },
    )
    write_sidecars(out, facts, splits, lists=(REJECTS, REPAIRS))
    job.end()
    return warnings


def complete(
    job: JobFolder, plan: Plan, reports: Sequence[ShardReport], identity: Mapping[str, Any], state: str
) -> ShardSummary:
    """Write the sidecars as `finish` does, put the dataset in its place, and return the summary.

    `state` is that of the source's files. Raises as `finish` does.
    """
    close_parts(job.folder)
    warnings = finish(job, plan, reports, identity)
    job.remember_state(state)
    job.swap_in()
    return ShardSummary(
        out=job.out,
        name=plan.name,
        splits=split_totals(reports),
        rejected=reasons({"reason": reject.reason} for report in reports for reject in report.rejects),
        repaired=sum(len(report.repairs) for report in reports),
        skipped=plan.listing.skipped,
        warnings=warnings,
    )


def _close_gaps(job: JobFolder, name: str, split: str, kept: Sequence[ShardReport]) -> list[str]:
    """Close the gaps of shards whose images were all bad, so that `{000000..000009}` finds all others.

    Shards are renamed upwards from the first. The mark that is left before tells the next run that renaming has begun;
    that run finishes the renaming, and recognises the shards that were renamed already by their first member.
    """
    files = [shard_file(name, split, number) for number in range(len(kept))]
    moves = [(report.file, file) for report, file in zip(kept, files, strict=True) if report.file != file]
    if not moves:
        return files
    job.mark_closing_gaps()
    out = job.folder
    # Upwards, each new number is below the old one, so the name is free: its shard was empty, or was moved before.
    for old, new in moves:
        # Keys are unique in a split: a tar under the new name that begins with this shard's first key is this shard.
        if _first_key(out / new) == _first_row_key(out, old):
            continue
        try:
            # The index goes first: after a crash between the two, the tar under its old name shows that this move is
            # unfinished, and the next run finds no index left to move. Each rename comes to disk before the next, which
            # may take its old name: after a power cut, both shards would be gone.
            if (out / _idx(old)).exists():
                os.replace(out / _idx(old), out / _idx(new))
                sync_folder(out)
            os.replace(out / old, out / new)
            sync_folder(out)
        except OSError as error:
            raise output_error(error, out / new) from error
    return files


def _idx(file: str) -> str:
    return file.removesuffix(".tar") + ".idx"


def _first_key(path: Path) -> str | None:
    return next(members(path)).name.rsplit(".", 1)[0] if path.exists() else None


def _first_row_key(out: Path, file: str) -> str:
    return str(read_rows(out, file)["key"][0].as_py())


@dataclass(frozen=True)
class _Records:
    """The index rows of shards, read one after the other, so that few of them are in memory."""

    out: Path
    recorded: Sequence[str]
    """Names of the shards when they were written."""
    files: Sequence[str]
    """Names of the shards now."""

    def __iter__(self) -> Iterator[pa.Table]:
        return map(_rows, itertools.repeat(self.out), self.recorded, self.files)


_COUNTED = ("format", "mode", "orientation", "label")


def _figures(tables: Iterable[pa.Table]) -> dict[str, Counter[Any]]:
    """Return how often each value of the columns `_COUNTED` occurs."""
    figures: dict[str, Counter[Any]] = {name: Counter() for name in _COUNTED}
    for table in tables:
        for name, counter in figures.items():
            counter.update(_counts(table[name]))
    return figures


def _rows(out: Path, recorded: str, file: str) -> pa.Table:
    table = read_rows(out, recorded)
    if recorded == file:
        return table
    position = table.schema.get_field_index("shard")
    column = column_array([file] * len(table), table.schema.field(position).type)
    return table.set_column(position, table.schema.field(position), column)


def _columns(listing: Listing, row_N: NDArray[np.int64], tables: Iterable[pa.Table]) -> pa.Table | None:
    """Return the fields of a split's samples, in the order of its index; `row_N` are its rows in the listing."""
    if listing.fields_N is None:
        return None
    row_of_split = number_array(row_N)
    keys = pa.concat_tables([table.select(["key"]) for table in tables])["key"]
    # Keys are unique in a dataset; rejected images have none here.
    place = pc.index_in(keys, value_set=listing.key_N.take(row_of_split).combine_chunks())
    texts = listing.fields_N.take(row_of_split).take(place)
    return fields_table(json.loads(text) if text else {} for chunk in texts.chunks for text in chunk.to_pylist())


def _write_lines(path: Path, rows: Iterable[Reject | Repair]) -> None:
    """Write one JSON object a line; no file when there are none."""
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in rows]
    if lines:
        write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))


def _warnings(plan: Plan, figures: Mapping[str, Mapping[str, Counter[Any]]]) -> list[str]:
    """Return the warnings: properties of the finished images that cause trouble in training.

    `figures` are the `_figures` of each split.
    """
    formats, modes, orientations = (
        sum((of_split[name] for of_split in figures.values()), Counter()) for name in ("format", "mode", "orientation")
    )
    misnamed = {name: count for name, count in formats.items() if extension_of(name) != plan.extension}
    warnings = []
    if misnamed:
        what = ", ".join(f"{count} {name}" for name, count in sorted(misnamed.items()))
        warnings.append(
            f"{what} images are stored as .{plan.extension}, like the others, so that every reader finds them; "
            f"--format {plan.extension} makes them {plan.extension}"
        )
    odd = {
        "CMYK": modes.get("CMYK", 0) + modes.get("YCCK", 0),
        "16-bit": sum(count for mode, count in modes.items() if "16" in mode),
        "EXIF-rotated": sum(count for turn, count in orientations.items() if turn > 1),
    }
    gray = modes.get("I;16", 0)
    if gray:
        warnings.append(
            f"{gray} gray images have 16 bits: all above 255 is white where they are loaded, as with torchvision, so "
            "that most of them train as white pictures; --on-bad repair scales them to 8 bits"
        )
    if any(odd.values()):
        what = ", ".join(f"{count} {name}" for name, count in odd.items() if count)
        warnings.append(f"{what} images were kept as they are; --on-bad repair makes them upright 8-bit RGB")
    for split, of_split in figures.items():
        number = plan.listing.splits.index(split)
        listed = distinct(plan.listing.label_N[(plan.listing.split_N == number) & (plan.listing.label_N >= 0)])
        lost = [label for label in listed.tolist() if label not in of_split["label"]]
        warnings += [f"class {plan.listing.classes[label].id} has no usable image left in {split}" for label in lost]
    return warnings


def _notes(reports: Sequence[ShardReport]) -> list[str]:
    """Return what was noted of single images, each text once, with how many images and the first of them."""
    texts: dict[str, tuple[int, str]] = {}
    for note in (note for report in reports for note in report.notes):
        count, first = texts.get(note.text, (0, note.first))
        texts[note.text] = count + note.images, first
    found = sorted(texts.items(), key=lambda one: (-one[1][0], one[0]))
    lines = [
        f"{count} image{'s'[: count > 1]}, {'the first is ' if count > 1 else ''}{first}: {text}"
        for text, (count, first) in found[:_MAX_NOTES]
    ]
    if len(found) > _MAX_NOTES:
        lines.append(f"{len(found) - _MAX_NOTES} more kinds of notes on single images")
    return lines


def _counts(column: pa.ChunkedArray) -> dict[Any, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}
