"""Findings, what each check said -> `findings.parquet` and `findings.json` in a folder; a folder -> the findings."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imgdata.auditing.finding import KINDS, Finding, Place
from imgdata.errors import OptionError, ShardError
from imgdata.storage.reading import open_regular, require_regular

PARQUET, JSON = "findings.parquet", "findings.json"
FORMAT, VERSION = "imgdata audit", 1
"""Marks of a folder that an audit wrote, and of the layout of its files."""
_ROW_GROUP = 1 << 16
_MARK_BYTES = 100
_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("what", pa.string()),
        ("split", pa.string()),
        ("key", pa.string()),
        ("source", pa.string()),
        ("position", pa.int64()),
        ("score", pa.float64()),
        ("other_split", pa.string()),
        ("other_key", pa.string()),
        ("other_source", pa.string()),
        ("other_position", pa.int64()),
        ("message", pa.string()),
        ("evidence", pa.map_(pa.string(), pa.float64())),
        ("proposal", pa.string()),
        ("label", pa.string()),
    ]
)


def write_parquet(path: Path, findings: Sequence[Finding], facts: Mapping[str, Any]) -> None:
    """Write the findings, one row each, to `path` as it is; `facts` become the file's metadata. Raises `OSError`."""
    schema = _SCHEMA.with_metadata({FORMAT: json.dumps({"version": VERSION, **facts})})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, max(len(findings), 1), _ROW_GROUP):
            rows = list(map(finding_row, findings[start : start + _ROW_GROUP]))
            columns = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def read_parquet(path: Path) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    """Return the findings in a file of `write_parquet`, and its facts. Raises `OSError`, `ShardError`."""
    require_regular(path)
    try:
        with pq.ParquetFile(path) as file:
            facts = json.loads((file.schema_arrow.metadata or {})[FORMAT.encode()])
            if facts["version"] != VERSION:
                raise ShardError(f"{path}: version must be {VERSION}, got {facts['version']!r}; audit again")
            rows = [row for part in file.iter_batches(_ROW_GROUP) for row in part.to_pylist()]
        return tuple(map(_finding, rows)), facts
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise ShardError(f"{path}: no findings of an audit ({error}); audit again") from error


def read_findings(folder: str | Path) -> tuple[Finding, ...]:
    """Return the findings that an audit wrote into `folder`, in their order: by kind, the surest first.

    Raises `OptionError` for a folder without findings, `ShardError` for damaged ones.
    """
    path = Path(folder) / PARQUET
    try:
        return read_parquet(path)[0]
    except FileNotFoundError:
        raise OptionError(f"{folder}: no {PARQUET} there; `imgdata audit DATASET -o {folder}` writes it") from None


def is_report(folder: Path) -> bool:
    """Return whether an audit wrote into `folder` before."""
    try:
        with open(folder / JSON, "rb", opener=open_regular) as file:
            # Of any size: the mark comes first.
            return file.read(_MARK_BYTES).startswith(f'{{\n "format": "{FORMAT}"'.encode())
    except OSError:
        return False


def json_lines(findings: Sequence[Finding], facts: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the parts of `findings.json`: one object, whose `findings` are the rows, each on a line of its own."""
    head = json.dumps({"format": FORMAT, "version": VERSION, **_plain(facts)}, ensure_ascii=False, indent=1)
    yield head[:-2].encode() + b',\n "findings": ['
    for number, finding in enumerate(findings):
        row = json.dumps(_plain(finding_row(finding)), ensure_ascii=False)
        yield (b",\n  " if number else b"\n  ") + row.encode()
    yield b"\n ]\n}\n" if findings else b"]\n}\n"


def finding_row(finding: Finding) -> dict[str, Any]:
    """Return the columns of a finding, by name."""
    place, other = finding.place or (None,) * 4, finding.other or (None,) * 4
    return {
        "kind": finding.kind,
        "what": finding.what,
        **dict(zip(("split", "key", "source", "position"), place, strict=True)),
        "score": finding.score,
        **dict(zip(("other_split", "other_key", "other_source", "other_position"), other, strict=True)),
        "message": finding.message,
        "evidence": dict(finding.evidence),
        "proposal": finding.proposal,
        "label": finding.label,
    }


def _finding(row: Mapping[str, Any]) -> Finding:
    if row["kind"] not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {row['kind']!r}")
    return Finding(
        kind=row["kind"],
        what=row["what"],
        place=_place(row, ""),
        score=row["score"],
        other=_place(row, "other_"),
        message=row["message"],
        evidence=dict(row["evidence"]),
        proposal=row["proposal"],
        label=row["label"],
    )


def _place(row: Mapping[str, Any], prefix: str) -> Place | None:
    names = ("split", "key", "source", "position")
    return None if row[f"{prefix}key"] is None else Place(*(row[prefix + name] for name in names))


def _plain(value: Any) -> Any:
    """Return the value as JSON takes it: numbers that are none become null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
