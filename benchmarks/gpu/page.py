"""Reports of GPUs -> the tables of docs/gpu.md; a report -> the verdicts that the command prints."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.tables import table
from benchmarks.targets import GPU_TARGETS

_COLUMNS = {
    "images_per_s": "images/s",
    "cpu_ms_per_image": "CPU-ms/image",
    "gpu_mb": "GPU MB",
    "first_batch_s": "first batch s",
}
_ELSEWHERE = ("versions", "doctor", "pictures")
"""Items that are shown in another place, or are too long."""
_VERDICTS = {"yes": "met", "**no**": "missed", "": "not measured"}


def verdicts(report: Mapping[str, Any]) -> str:
    """Return the targets with their figures as lines of text."""
    rows = [("target", "wanted", "figure", "verdict"), *_verdict_rows({"gpu-now": report})]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[3]:<12}  {_short(row)}" for row in rows)


def markdown(results: Mapping[str, Any]) -> str:
    """Return a section for each card that has a report; without any, the targets alone."""
    reports = {name: report for name, report in results.items() if name.startswith("gpu-")}
    if not reports:
        return f"No run on a GPU has been recorded yet.\n\n{_targets({})}"
    return "\n\n".join(part for name, report in reports.items() for part in _sections(name, report))


def _sections(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    phases = report["phases"]
    place = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items())
    yield f"## {report['card']}"
    yield f"Measured beside {place}, {report['date']}, commit {report['commit'] or 'unknown'}, with {versions}."
    yield _targets({name: report})
    for group, rows in phases.get("loaders", {}).get("results", {}).items():
        if group not in ("pictures", "python"):
            yield f"### Loaders: {group}" if group in ("float16", "uint8") else f"### Loaders, {group}"
            yield _loaders(rows)
    networks = phases.get("end_to_end", {}).get("results", {}).get("networks")
    if networks:
        yield "### Training, with the loader and with batches that stay on the GPU"
        yield _networks(networks)
    found = list(_found(phases))
    if found:
        yield "### The machine, faults, runs"
        yield table(["", "found"], found)
    yield "### Phases"
    yield _phases(phases)
    notes = list(_notes(phases))
    if notes:
        yield "\n".join(notes)


def _targets(results: Mapping[str, Any]) -> str:
    rows = [[row[0], row[1], row[2], row[3]] for row in _verdict_rows(results)]
    return table(["target", "wanted", "figure", ""], rows)


def _verdict_rows(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for target in GPU_TARGETS:
        _, what, wanted, measured, met = target.row(results)
        yield what.replace("|", "/"), wanted, measured.replace("|", "/"), _VERDICTS[met]


def _short(row: tuple[str, str, str, str]) -> str:
    return row[2].removeprefix("not measured: ")


def _loaders(rows: Mapping[str, Mapping[str, Any]]) -> str:
    return table(
        ["loader", *_COLUMNS.values()],
        [[_named(name, row), *(_number(row.get(column)) for column in _COLUMNS)] for name, row in rows.items()],
    )


def _named(name: str, row: Mapping[str, Any]) -> str:
    return f"{name} {row['version']}" if row.get("version") and not name.startswith("imgdata") else name


def _networks(rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = ["network, batch", "images/s", "without the loader", "ratio", "waiting"]
    return table(
        head,
        [
            [
                name,
                _number(row["real_images_per_s"]),
                _number(row["synthetic_images_per_s"]),
                f"{row['ratio']:.3f}",
                f"{row['data_wait']:.1%}",
            ]
            for name, row in rows.items()
        ],
    )


def _found(phases: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield a row for each item of the phases that measure no loader and no network."""
    for name in ("machine", "faults", "training"):
        for item, value in phases.get(name, {}).get("results", {}).items():
            if item in _ELSEWHERE:
                continue
            inner = {f"{item}, {one}": of for one, of in value.items()} if _nested(value) else {item: value}
            yield from ([f"{name}: {title}", _words(one)] for title, one in inner.items())


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in value.values())


def _words(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    words = [f"{name.replace('_', ' ')} {one}" for name, one in value.items() if one not in (None, "", [])]
    return ", ".join(words).replace("|", "/").replace("\n", " ")


def _phases(phases: Mapping[str, Mapping[str, Any]]) -> str:
    return table(
        ["phase", "seconds", ""],
        [
            [name, f"{phase['seconds']:g}", "passed" if phase["passed"] else f"{len(phase['problems'])} failed"]
            for name, phase in phases.items()
        ],
    )


def _notes(phases: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each item that failed, and for each that has no figure."""
    for name, phase in phases.items():
        for word, said in (("failed", phase["problems"]), ("not measured", phase["not_measured"])):
            for item, reason in said.items():
                yield f"- {name}, {word}: {f'{item}: ' if item else ''}{reason}"


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
