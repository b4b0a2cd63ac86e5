"""Recorded runs in `benchmarks/results/` -> the tables and sentences that pages show of them."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "benchmarks" / "results"
# `python docs/reference.py` looks for modules beside that file only.
sys.path.insert(0, str(_ROOT))
_tables, _aims = import_module("benchmarks.tables"), import_module("benchmarks.targets")
_gpu_page = import_module("benchmarks.gpu.page")
_RIVALS = {
    "Grain + Pillow-SIMD": "Grain with Pillow-SIMD",
    "torchvision v2": "torchvision, `DataLoader`",
    "timm": "timm",
    "webdataset": "webdataset",
    "HF datasets": "Hugging Face datasets",
    "DALI": "NVIDIA DALI (on the processor)",
    "FFCV": "FFCV",
    "tf.data": "tf.data",
}
"""Loaders of the first page's table: as the recorded run names them -> as people know them."""


def _results(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text())
    return results


def _speed(group: str) -> str:
    figures = _results("shard_speed")["results"][group]
    own = [name for name in figures if name.startswith("imgdata ")]
    rows = []
    for name, row in figures.items():
        # Runs that were recorded before there were several of ours have one ratio.
        ratios = row.get("each_against_it", {} if name == own[0] else {own[0]: row["ours_against_it"]})
        against = " | ".join(f"{ratios[one]:.2f}x" if one in ratios and name not in own else "" for one in own)
        costs = f"{row['images_per_s']:,.0f} | {row['cpu_ms_per_image']:.3f} | {row['peak_mb']:,}"
        rows.append(f"| {name} | {costs} | {against} |")
    titles = " | ".join(f"{one} against it" for one in own) if len(own) > 1 else "imgdata against it"
    head = f"| writer | images/s | CPU-ms/image | peak MB | {titles} |\n|---|--:|--:|--:|{'--:|' * len(own)}"
    return "\n".join([head, *rows])


def _loaders(group: str) -> str:
    """Return a table of the group `DTYPE_THREADS`: the fewest CPU-ms first, a star where loaders do less work."""
    figures = _results("loaders")["results"][group]
    rows = []
    for name, row in sorted(figures.items(), key=lambda item: item[1]["cpu_ms_per_image"]):
        title = f"{name} {row['version']}" + ("" if row["antialias"] else " &#42;")
        ratios = f"{_against(row, 'our_rate_against_it')} | {_against(row, 'our_cpu_against_it')}"
        costs = f"{row['images_per_s']:,.0f} | {row['cpu_ms_per_image']:.3f} | {row.get('memory_mb', '')}"
        rows.append(f"| {title} | {costs} | {ratios} |")
    head = "| loader | images/s | CPU-ms/image | MB | our rate / its | our CPU-ms / its |\n|---|--:|--:|--:|--:|--:|"
    return "\n".join([head, *rows])


def _against(row: dict[str, Any], ratio: str) -> str:
    return f"{row[ratio]:.2f}" if ratio in row else ""


def _parity(_: str) -> str:
    """Return a row for each operator, a column for each backend; the last is the host's Pillow against tensors."""
    rows = _results("parity")["rows"]
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    means: dict[str, dict[str, float]] = {}
    for row in rows:
        means.setdefault(row["operator"], {})[row["backend"]] = row["pil"]["mean"]
        if row["backend"] == backends[0]:
            means[row["operator"]]["tensor"] = row["tensor"]["mean"]
    head = f"| operator | {' | '.join(backends)} | {backends[0]}, from tensors |\n|---|" + "--:|" * (len(backends) + 1)
    columns = [*backends, "tensor"]
    lines = [
        f"| {name} | " + " | ".join("" if column not in of else f"{of[column]:.3g}" for column in columns) + " |"
        for name, of in means.items()
    ]
    return "\n".join([head, *lines])


def _scale(_: str) -> str:
    report = _results("scale")
    rows = [f"| {name.replace('_', ' ')} | {value:,} |" for name, value in report["listing_and_plan"].items()]
    rows += [
        f"| peak MB after writing {int(count):,} samples | {figures['peak_mb']:,} |"
        for count, figures in report["peak_memory_by_samples_written"].items()
    ]
    return "\n".join(["| | |\n|---|--:|", *rows])


def _pipeline(names: str) -> str:
    """Return a part of a recorded pipeline, such as `p0 curve`."""
    name, part = names.split()
    report = _results("pipelines")[name]
    parts: dict[str, Callable[[dict[str, Any]], str]] = {
        "commands": _commands,
        "stages": lambda report: _stages(report["trace"]),
        "layers": lambda report: _layers(report["before"]),
        "curve": lambda report: _curve(report["summary"]),
        "answers": _answers,
        "classes": _ways,
        "audit": _audited,
        "transfer": _transfer,
        "predictions": _predictions,
        "widths": _widths,
        "measured": _measured_pipeline,
    }
    return parts[part](report)


def _commands(report: dict[str, Any]) -> str:
    lines = [f"$ {step['text']}" for step in report["steps"]]
    return "\n".join(["```console", *lines, "```"])


def _audited(report: dict[str, Any]) -> str:
    rows = [f"| {row['kind']} | {row['found']:,} | {row['surest']} |" for row in report["audit"]]
    return "\n".join(["| kind | found | the surest |\n|---|--:|---|", *rows])


def _stages(trace: dict[str, Any]) -> str:
    head = "| stage | step | count | shape | type | range | example | ms |\n|---|---|--:|--:|---|--:|---|--:|"
    rows, stage = [], ""
    for row in trace["rows"]:
        if row["stage"] != "layer":
            shown = "" if row["stage"] == stage else row["stage"]
            cells = (_shape(row), row["dtype"], _range(row), row["example"], _ms(row))
            rows.append(f"| {shown} | {row['step']} | {row['count']:,} | " + " | ".join(cells) + " |")
        stage = row["stage"]
    return "\n".join([head, *rows])


def _layers(trace: dict[str, Any]) -> str:
    head = "| layer | shape | range | parameters | ms |\n|---|--:|--:|--:|--:|"
    rows = [
        f"| {row['step']} | {_shape(row)} | {_range(row)} | {row['parameters'] or 0:,} | {_ms(row)} |"
        for row in trace["rows"]
        if row["stage"] == "layer"
    ]
    return "\n".join([head, *rows])


def _shape(row: dict[str, Any]) -> str:
    return " x ".join(f"{side:,}" for side in row["shape"])


def _range(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return ""
    if row["stage"] == "load":
        return f"{row['low']:,.0f} to {row['high']:,.0f} bytes"
    return f"{row['low']:.3g} to {row['high']:.3g}"


def _ms(row: dict[str, Any]) -> str:
    return "" if row["ms_per_image"] is None else f"{row['ms_per_image']:.3f}"


def _curve(summary: dict[str, Any]) -> str:
    head = (
        "| epoch | training loss | training accuracy | validation loss | validation accuracy |\n|--:|--:|--:|--:|--:|"
    )
    rows = [
        f"| {row['epoch']} | {row['train_loss']:.3f} | {row['train_top1']:.1%} | {row['val_loss']:.3f} "
        f"| {row['val_top1']:.1%} |"
        for row in summary["curve"]
    ]
    return "\n".join([head, *rows])


def _answers(report: dict[str, Any]) -> str:
    """Return the result of the kept epoch on its validation set, and on a test set, where there was one."""
    summary = report["summary"]
    lines = [f"Validation: **{summary['correct']:,} of {summary['total']:,}** right ({summary['top1']:.1%})"]
    if "test" in report:
        test = report["test"]
        lines.append(f"test set, never seen: **{test['correct']:,} of {test['total']:,}** ({test['top1']:.1%})")
    return "; ".join(lines) + "."


def _ways(report: dict[str, Any]) -> str:
    """Accuracy by class of each way to deal with imbalance, a mean over seeds."""
    split, ways = report["inspect"]["splits"]["train"], report["ways"]
    head = f"| class | to train on | {' | '.join(ways)} |\n|---|--:|{'--:|' * len(ways)}"
    named = enumerate(name for _, name in report["inspect"]["classes"])
    rows = sorted(((split["class_counts"][number], number, name) for number, name in named), reverse=True)
    lines = [
        f"| {name} | {count:,} | " + " | ".join(f"{way['by_class'][number]:.0%}" for way in ways.values()) + " |"
        for count, number, name in rows
    ]
    means = " | ".join(f"**{way['top1']:.1%}**" for way in ways.values())
    spread = " | ".join(f"{min(way['top1_of_seeds']):.1%} to {max(way['top1_of_seeds']):.1%}" for way in ways.values())
    lines.append(f"| all, as many of each | {sum(split['class_counts']):,} | {means} |")
    lines.append(f"| lowest and highest of {len(report['seeds'])} seeds | | {spread} |")
    return "\n".join([head, *lines])


def _transfer(report: dict[str, Any]) -> str:
    """Return the results of training from scratch, of a new classifier, and of fine-tuning, on the same pictures."""
    frozen = report["summary"]["curve"][: report["frozen_epochs"]]
    scratch, tuned = report["scratch"], report["summary"]
    rows = (
        ("`cnn` from scratch", len(scratch["curve"]), scratch["top1"]),
        ("Lite0, new classifier on frozen features", len(frozen), max(row["val_top1"] for row in frozen)),
        ("the same, then fine-tuned", len(tuned["curve"]), tuned["top1"]),
    )
    lines = [f"| {what} | {epochs} | {top1:.1%} |" for what, epochs, top1 in rows]
    return "\n".join(["| | epochs | validation accuracy |\n|---|--:|--:|", *lines])


def _predictions(report: dict[str, Any]) -> str:
    rows = [f"| {one['name']} | {one['probability']:.1%} |" for one in report["predictions"][0]["predictions"]]
    return "\n".join(["| class | probability |\n|---|--:|", *rows])


def _widths(report: dict[str, Any]) -> str:
    rows = [f"| {name} | {width:,} |" for name, width in report["widths"].items()]
    return "\n".join(["| network | features |\n|---|--:|", *rows])


def _measured_pipeline(report: dict[str, Any]) -> str:
    place = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    packages = ("python", "imgdata", "torch", "timm")
    versions = ", ".join(f"{package} {report['versions'][package]}" for package in packages)
    seconds = sum(step["seconds"] for step in report["steps"])
    return (
        f"Recorded on {place}, {report['date']}, with {versions}, seed {report['seed']}; the commands took "
        f"{seconds:,.0f} s. To repeat: `{report['command']}`."
    )


def _suites(_: str) -> str:
    stages: str = _tables.stages(_results("stages"))
    return stages


def _growth(name: str) -> str:
    recorded = _results("growth")
    return f"{_tables.growth(recorded, name)}\n\n{_origin(recorded[name])}"


def _audit_duplicates(images: str) -> str:
    """Return recall by edit, precision and cost of each program, in a run of so many pictures."""
    report = _results("audit_duplicates")[images]
    programs = report["programs"]
    rows = []
    for edit, copies in report["copies"].items():
        if not copies:
            continue
        exact = edit.startswith("same")
        shown = [
            [row["recall"][edit][group] for group in (("all",) if exact else ("clear", "small"))]
            for row in programs.values()
        ]
        rows.append(
            f"| {edit} | {copies:,} | " + " | ".join(", ".join(f"{share:.1%}" for share in one) for one in shown) + " |"
        )
    for title, figure in (("precision", "precision"), ("precision among clear pictures", "precision_clear")):
        rows.append(f"| {title} | | " + " | ".join(f"{row[figure]:.2%}" for row in programs.values()) + " |")
    for title, figure in (("seconds", "seconds"), ("CPU-seconds", "cpu_seconds")):
        rows.append(f"| {title} | | " + " | ".join(f"{row[figure]:,.0f}" for row in programs.values()) + " |")
    head = f"| | copies | {' | '.join(programs)} |\n|---|--:|{'--:|' * len(programs)}"
    return "\n".join([head, *rows, "", _origin(report)])


_VIEWED = {
    "start_s": "until the address is printed, s",
    "first_screen_s": "until 60 pictures show, s",
    "first_screen_cpu_s": "of it CPU time, s",
    "screen_ms": "60 further pictures, ms",
    "thumbnails_per_s": "pictures/s",
    "class_ms": "a class, ms",
    "text_ms": "a text, the first time, ms",
    "sort_by_width_ms": "by width, ms",
    "sort_by_key_ms": "by key, the first time, ms",
    "browsed_mb": "memory after 60 pictures, MB",
    "peak_mb": "memory at most, MB",
}


def _viewer(_: str) -> str:
    """Return what the viewer takes, by samples."""
    report = _results("viewer")
    head = f"| | {' | '.join(format(row['samples'], ',') for row in report['rows'])} |"
    rows = [
        f"| {title} | {' | '.join(format(row[name], ',') for row in report['rows'])} |"
        for name, title in _VIEWED.items()
    ]
    load = f"Other programs kept {report['load']:.0f} processes waiting for the same cores."
    return "\n".join([head, f"|---|{'--:|' * len(report['rows'])}", *rows, "", f"{_origin(report)} {load}"])


def _reliability(_: str) -> str:
    """Return how the states read in which crashes and power cuts leave the files of each writer."""
    report = _results("reliability")
    head = "| writer | steps | ended by | states | read as before | as after | one clear error | lost |"
    rows = [
        f"| {row['writer']} | {row['steps']:,} | {title} | {row[kind]['states']:,} | {row[kind]['old']:,} | "
        f"{row[kind]['new']:,} | {row[kind]['error']:,} | **{row[kind]['lost']:,}** |"
        for row in report["writers"]
        for kind, title in (("killed", "a kill"), ("powerless", "a power cut"))
    ]
    origin = f"Counted on {report['date']}. To repeat: `python -m benchmarks.reliability --save`."
    return "\n".join([head, "|---|--:|---|--:|--:|--:|--:|--:|", *rows, "", origin])


def _reliability_faults(_: str) -> str:
    """Return how work ended whose calls failed by seeds, by work and by fault, and many processes over one cache."""
    report = _results("reliability_faults")
    tables = []
    for title, first, counted, rows in (
        ("work", "work", ("tries", "faults", "same", "error"), report["work"]),
        ("fault", "kind", ("faults", "same", "error"), report["kinds"]),
    ):
        names = {"same": "same result", "error": "one error"}
        head = f"| {title} | {' | '.join(names.get(name, name) for name in counted)} | lost |"
        lines = [
            f"| {row[first]} | {' | '.join(format(row[name], ',') for name in counted)} | **{row['lost']:,}** |"
            for row in rows
        ]
        tables += [head, f"|---|{'--:|' * (len(counted) + 1)}", *lines, ""]
    ranks = report["ranks"]
    cache = (
        f"{ranks['processes']} processes read a dataset by one cache that holds a third of its shards, and "
        f"{ranks['killed']} of them are killed in the middle: of {ranks['reads']:,} ranges {ranks['wrong']} "
        f"were wrong and {ranks['from_the_cache']:,} came from the cache; {ranks['unfinished']} unfinished "
        f"shards were left, and the limit was passed {ranks['over_the_limit']} times."
    )
    origin = f"Counted on {report['date']}. To repeat: `python -m benchmarks.reliability_faults --save`."
    return "\n".join([*tables, cache, "", origin])


def _audit_trained(_: str) -> str:
    """Return the accuracy on the clean test after training on flipped, corrected and right labels, by seed."""
    report = _results("audit_labels")
    rows = [
        f"| {row['seed']} | {row['flipped']:,} of 4,000 | {row['wrong_after']:,} | {row['before']:.1%} | "
        f"**{row['after']:.1%}** | {row['right']:.1%} |"
        for row in report["trained"]
    ]
    command = f"python -m benchmarks.audit_labels trained --seeds {len(rows)} --save"
    head = "| seed | flipped | wrong after the fix | accuracy before | after | with the right labels |"
    return "\n".join([head, "|--:|--:|--:|--:|--:|--:|", *rows, "", _origin({**report, "command": command})])


def _targets(_: str) -> str:
    targets: str = _aims.markdown(_aims.recorded())
    return targets


def _gpu(_: str) -> str:
    """Return a section for each GPU that was measured, or the targets without figures."""
    cards: str = _gpu_page.markdown(_aims.recorded())
    return cards


def _remote(_: str) -> str:
    """Return the table of loaders that read from an object store, and where it was measured."""
    if not (_RESULTS / "remote.json").exists():
        return "Not recorded yet: `python -m benchmarks.remote --save`."
    report = _results("remote")
    return f"{_tables.remote(report['results'])}\n\n{_origin(report)}"


def _measured(name: str) -> str:
    return _origin(_results(name))


def _origin(report: dict[str, Any]) -> str:
    place = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items())
    return f"Measured on {place}, {report['date']}, with {versions}. To repeat: `{report['command']}`."


def _switch(_: str) -> str:
    """Return the first page's table: images/s of the usual loaders beside ours, float32 batches with two threads."""
    figures = _results("loaders")["results"]["float32_2"]
    ours = figures["imgdata"]
    rows = [f"| **imgdata** | **{ours['images_per_s']:,.0f}** | **{ours['cpu_ms_per_image']:.2f}** | |"]
    for name, title in sorted(_RIVALS.items(), key=lambda item: -figures[item[0]]["images_per_s"]):
        row = figures[name]
        costs = f"{row['images_per_s']:,.0f} | {row['cpu_ms_per_image']:.2f}"
        rows.append(f"| {title} {row['version']} | {costs} | {row['our_rate_against_it']:.1f} times as fast |")
    head = "| loader | images/s | CPU-ms/image | imgdata is |\n|---|--:|--:|--:|"
    return "\n".join([head, *rows])


def _crop_ready(_: str) -> str:
    """Return the table of plain and crop-ready files: bytes, and processor time beside libjpeg-turbo's."""
    report = _results("crop_ready")
    head = (
        "| JPEG quality | MCUs between markers | KB | bytes of the plain file | libjpeg-turbo, plain file | "
        "its segments | imgdata, uint8 | imgdata, float32 |\n|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    rows = [
        f"| {row['quality']} | {'no markers' if row['interval'] == 'plain' else row['interval']} | {row['kb']:.1f} | "
        f"{row['bytes_of_plain']:.1%} | {row['bare_ms']:.3f} ms | "
        f"{row['sliced_of_bare']:.2f}x | {row['uint8_ms']:.3f} ms, "
        f"{row['uint8_of_bare']:.2f}x | {row['float32_ms']:.3f} ms, {row['float32_of_bare']:.2f}x |"
        for row in report["rows"]
    ]
    return "\n".join([head, *rows]) + _crop_ready_sharding(report) + f"\n\n{_origin(report)}"


def _crop_ready_sharding(report: dict[str, Any]) -> str:
    """Return the table of writers of crop-ready files; nothing where the report has none."""
    measured = [row for row in report.get("sharding", []) if "missing" not in row]
    if not measured:
        return ""
    rows = "\n".join(f"| {row['writer']} | {row['images_per_s']:,} | {row['cpu_ms']:.2f} |" for row in measured)
    photos = f"{report['shard_images']:,} photographs of 500x375"
    text = f"How fast {photos} are written, by two workers; `jpegtran` writes files:"
    return f"\n\n{text}\n\n| writer | images/s | CPU-ms/image |\n|---|--:|--:|\n{rows}"


def _large_forms(_: str) -> str:
    """Return what rows at random cost in each form of an index."""
    report = _results("large_forms")
    head = (
        "| form | 256 rows from the page cache, ms | from the disk, ms | read from the disk, kB | bytes of a row |\n"
        "|---|--:|--:|--:|--:|"
    )
    rows = [
        f"| {name} | {row['warm_ms']:,.2f} | {row['cold_ms']:,.0f} | {row['cold_read_kb']:,.0f} | "
        f"{row['bytes_per_row']} |"
        for name, row in report["results"].items()
    ]
    return "\n".join([head, *rows, "", f"{report['rows']:,} rows. {_origin(report)}"])


_LAION = {"samples": 2_000_000_000, "cores": 1024, "gbit_per_s": 100, "core_hour": 0.04, "gb_month": 0.023}
"""Inputs of the plan: cores and network of all machines together, prices in dollars as public clouds list them."""
_LAION_BYTES = {"256 pixels, 20 kB an image": 20_000, "512 pixels, 60 kB an image": 60_000}


def _laion(_: str) -> str:
    """Return time, bytes and cost of two billion images, from the recorded rates and `_LAION`."""
    samples, cores = _LAION["samples"], _LAION["cores"]
    copied = _results("shard_speed")["results"]["copy"]["imgdata hash=xxh128"]["cpu_ms_per_image"]
    loaded = _results("loaders")["results"]["uint8_1"]["imgdata"]["cpu_ms_per_image"]
    growth = _results("growth")
    planned = growth["large_ranks"]["rows"][-1]
    plan_ms = planned["global_plan_cpu_ms"]
    forms = _results("large_forms")["results"]
    places = forms["places"]["bytes_per_row"] * samples
    # Hashes of images don't shrink.
    parquet = (forms["Parquet"]["bytes_per_row"] + 8) * samples

    def hours(cpu_ms: float) -> float:
        return samples * cpu_ms / 3.6e6

    def cost(core_hours: float) -> str:
        return f"{core_hours:,.0f} core-hours, ${core_hours * _LAION['core_hour']:,.0f}"

    def transfer(num_bytes: float) -> str:
        return f"{num_bytes * 8 / _LAION['gbit_per_s'] / 1e9 / 3600:,.1f} h"

    rows = []
    for name, size in _LAION_BYTES.items():
        tars = samples * size
        stored = tars + places + parquet
        rows += [
            f"| **{name}** | |",
            f"| tars | {tars / 1e12:,.0f} TB |",
            f"| index: places, Parquet without keys | {places / 1e9:,.0f} GB, {parquet / 1e9:,.0f} GB |",
            f"| a month of an object store | ${stored / 1e9 * _LAION['gb_month']:,.0f} |",
            f"| the network, once through | {transfer(stored)} |",
        ]
    rows += [
        "| **either** | |",
        f"| copying into shards, `--hash xxh128`: {copied} ms of a core each | {cost(hours(copied))} |",
        f"| the same on all cores | {hours(copied) / cores * 60:,.0f} min, and not before the network |",
        f"| an epoch of random crops: {loaded} ms of a core each | {cost(hours(loaded))} |",
        f"| the same on all cores | {hours(loaded) / cores * 60:,.0f} min |",
        f"| of it planning, {plan_ms} ms for 256 | {cost(hours(plan_ms / 256))} |",
        f"| memory of a rank for index and order | {planned['global_peak_mb']:,.0f} MB |",
        f"| the same with `window` | {planned['window_peak_mb']:,.0f} MB |",
        f"| opening | {planned['open_cpu_ms'] / 1000:,.1f} s |",
    ]
    inputs = (
        f"Inputs: {samples:,} images, {cores:,} cores and {_LAION['gbit_per_s']} Gbit/s in all, ${_LAION['core_hour']} "
        f"a core-hour, ${_LAION['gb_month']} a GB and month. Rates were measured with pictures of 84 to 87 kB."
    )
    return "\n".join(["| | |", "|---|--:|", *rows, "", inputs])


FIGURES: dict[str, Callable[[str], str]] = {
    "speed": _speed,
    "loaders": _loaders,
    "parity": _parity,
    "scale": _scale,
    "remote": _remote,
    "stages": _suites,
    "markers": _crop_ready,
    "growth": _growth,
    "large_forms": _large_forms,
    "laion": _laion,
    "audit_duplicates": _audit_duplicates,
    "audit_trained": _audit_trained,
    "viewer": _viewer,
    "reliability": _reliability,
    "reliability_faults": _reliability_faults,
    "targets": _targets,
    "gpu": _gpu,
    "pipeline": _pipeline,
    "measured": _measured,
    "switch": _switch,
}
"""Marks of pages -> what makes their content, from the mark's arguments."""
