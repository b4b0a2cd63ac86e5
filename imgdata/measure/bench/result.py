"""What was measured in each round -> medians, ratios of neighbours; the result as plain values, tables, Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from imgdata.measure.bench.job import OURS, Measured
from imgdata.measure.bench.rounds import median_ratio
from imgdata.tables import WIDTH, as_html, as_text, counted, new_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_TIMES = ("p50 ms", "p95", "p99", "first s", "hits", "fetched MB/s", "store s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Figures of one loader: medians over the rounds. With several GPUs, of all together."""

    images_per_s: float
    images_per_cpu_s: float | None
    """Per second of processor time: what one core makes that does nothing else. None where that can't be seen."""
    cpu_ms_per_image: float | None
    """User and system time of all threads and child processes."""
    p50_ms: float
    """Time from one batch to the next: of half of them at most, of 95 in 100, of 99 in 100."""
    p95_ms: float
    p99_ms: float
    first_batch_s: float
    """Seconds from opening the dataset to the first batch; imports left out."""
    mb_per_s: float | None
    """Encoded images read, in 10^6 bytes; None where they are kept decoded."""
    peak_mb: float
    """Most memory of the process, with what its worker processes have for themselves, in 10^6 bytes."""
    gpu_mb: float | None
    """Memory taken on the GPU, in 10^6 bytes; None without one."""
    warm_up_batches: int
    """Least number of batches before a measurement."""
    batches: int
    """Measured in a round."""
    cache_hits: float | None = None
    """Share of the images that the cache of shards had, 0 to 1; None where no shards of an object store are kept."""
    fetched_mb_per_s: float | None = None
    """Bytes that came from the store, in 10^6 for each second."""
    store_wait_s: float | None = None
    """Seconds of a round for which batches waited for the store, all batches together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerFigures(Figures):
    """Figures of another loader."""

    name: str
    version: str
    configuration: str
    ratio: float
    """Our images/s over its: above 1 where ours is faster."""
    cpu_ratio: float | None
    """Our processor time an image over its: below 1 where ours takes less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchResult:
    """All figures, and what is needed to judge and repeat them."""

    figures: Figures
    """Figures of our loader."""
    peers: tuple[PeerFigures, ...]
    """Other loaders, in the order in which they were asked for."""
    left_out: Mapping[str, str]
    """Other loaders that could not be measured, each with the reason."""
    devices: Mapping[str, float]
    """images/s of our loader by device."""
    backend: str
    backend_description: str
    device: str
    """`cpu`, `cuda:0`, or `cuda x 8`."""
    batch_size: int
    threads: int
    """Threads of each process."""
    dtype: str
    ranks: int
    seconds: float
    rounds: int
    dataset: Mapping[str, Any]
    """`name`, `split`, `samples`, `shards`, `mean_bytes` of an encoded image, `batches_per_epoch` of a rank."""
    recipe: Mapping[str, Any]
    """`name`, `ops`, `size` (height, width), and `content` as `Recipe.to_dict` gives it."""
    command: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    notes: tuple[str, ...]
    """Remarks that belong to the figures."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with our loader's figures at the top level."""
        content = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("figures", "peers")}
        return {**asdict(self.figures), **content, "peers": [asdict(peer) for peer in self.peers]}

    def __str__(self) -> str:
        return as_text(bench_parts(self, WIDTH))

    def _repr_html_(self) -> str:
        return as_html(bench_parts(self, WIDTH))


def together(measured: Sequence[Measured]) -> Measured:
    """Return one result for processes that ran at the same time: rates and memory add up, times are their medians."""
    if len(measured) == 1:
        return measured[0]
    return Measured(
        images=sum(one.images for one in measured),
        images_per_s=sum(one.images_per_s for one in measured),
        cpu_s=_sum([one.cpu_s for one in measured]),
        p50_ms=median(one.p50_ms for one in measured),
        p95_ms=median(one.p95_ms for one in measured),
        p99_ms=median(one.p99_ms for one in measured),
        first_batch_s=max(one.first_batch_s for one in measured),
        warm_up_batches=min(one.warm_up_batches for one in measured),
        batches=sum(one.batches for one in measured),
        peak_mb=sum(one.peak_mb for one in measured),
        gpu_mb=_sum([one.gpu_mb for one in measured]),
        bad=sum(one.bad for one in measured),
        version=measured[0].version,
        cache_hits=None if measured[0].cache_hits is None else mean(one.cache_hits or 0.0 for one in measured),
        fetched_mb_per_s=_sum([one.fetched_mb_per_s for one in measured]),
        store_wait_s=_sum([one.store_wait_s for one in measured]),
    )


def figures(rounds: Sequence[Measured], *, mean_bytes: float | None) -> Figures:
    """Return medians over the rounds; `mean_bytes` is an encoded image's, None where images are no longer read."""
    return Figures(**_medians(rounds, mean_bytes))


def peer_figures(
    rounds: Sequence[Measured], ours: Sequence[Measured], *, name: str, configuration: str, mean_bytes: float
) -> PeerFigures:
    """Return the same of another loader, with the medians of the ratios of each round."""
    pairs = list(zip(ours, rounds, strict=True))
    return PeerFigures(
        **_medians(rounds, mean_bytes),
        name=name,
        version=rounds[0].version,
        configuration=configuration,
        ratio=median_ratio((own.images_per_s, its.images_per_s) for own, its in pairs) or 0.0,
        cpu_ratio=median_ratio((_cpu_ms(own), _cpu_ms(its)) for own, its in pairs),
    )


def _medians(rounds: Sequence[Measured], mean_bytes: float | None) -> dict[str, Any]:
    rate = median(one.images_per_s for one in rounds)
    cpu_ms = _median([_cpu_ms(one) for one in rounds])
    return {
        "images_per_s": rate,
        "images_per_cpu_s": 1000 / cpu_ms if cpu_ms else None,
        "cpu_ms_per_image": cpu_ms,
        "p50_ms": median(one.p50_ms for one in rounds),
        "p95_ms": median(one.p95_ms for one in rounds),
        "p99_ms": median(one.p99_ms for one in rounds),
        "first_batch_s": median(one.first_batch_s for one in rounds),
        "mb_per_s": None if mean_bytes is None else rate * mean_bytes / 1e6,
        "peak_mb": median(one.peak_mb for one in rounds),
        "gpu_mb": _median([one.gpu_mb for one in rounds]),
        "warm_up_batches": min(one.warm_up_batches for one in rounds),
        "batches": round(mean(one.batches for one in rounds)),
        "cache_hits": _median([one.cache_hits for one in rounds]),
        "fetched_mb_per_s": _median([one.fetched_mb_per_s for one in rounds]),
        "store_wait_s": _median([one.store_wait_s for one in rounds]),
    }


def _cpu_ms(measured: Measured) -> float | None:
    return None if measured.cpu_s is None else 1000 * measured.cpu_s / measured.images


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if len(known) == len(values) else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def bench_parts(result: BenchResult, width: int) -> "Iterator[RenderableType]":
    """Yield what is shown of a benchmark: what was measured, the figures of each loader, notes."""
    for name, text in _head(result):
        yield f"{name:<9} {text}"
    for table in _tables(result, width):
        yield ""
        yield table
    yield ""
    yield from (f"- {text}" for text in result.notes)


def _head(result: BenchResult) -> list[tuple[str, str]]:
    """Return what was measured, with what, as pairs of a title and its text."""
    machine, data, recipe = result.machine, result.dataset, result.recipe
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    gpus = "".join(f", {name}" for name in machine["gpus"])
    height, width = recipe["size"]
    name = f"{recipe['name']}: " if recipe["name"] else ""
    return [
        ("command", result.command),
        ("machine", f"{machine['cpu']}, {cores}, {machine['memory_gb']:g} GB{gpus}; {machine['system']}"),
        ("versions", ", ".join(f"{package} {version}" for package, version in result.versions.items())),
        (
            "dataset",
            f"{data['name']}, {data['split']}: {data['samples']:,} images of {data['mean_bytes'] / 1e3:,.1f} kB in "
            f"{counted(data['shards'], 'shard') if data['shards'] else 'files that are not sharded'}",
        ),
        ("recipe", f"{name}{', '.join(recipe['ops'])}; {height} x {width}, {result.dtype}"),
        ("loader", f"{result.backend_description}; batches of {result.batch_size:,} on {result.device}"),
    ]


def _columns(result: BenchResult) -> list[str]:
    gpu = ["GPU MB"] * (result.figures.gpu_mb is not None)
    store = ["hits", "fetched MB/s", "store s"] * (result.figures.cache_hits is not None)
    ratio = ["ours/its"] * bool(result.peers)
    measured = ["images/s", "per core", "CPU ms", "p50 ms", "p95", "p99", "first s", "MB/s", "peak MB"]
    return [*measured, *gpu, *store, *ratio]


def _rows(result: BenchResult) -> list[tuple[str, list[str]]]:
    """Return a line for each loader, and with several GPUs for each of them."""
    rows = [(f"{OURS} ({result.backend})", [*_cells(result.figures, result), *[""] * bool(result.peers)])]
    if len(result.devices) > 1:
        empty = [""] * (len(_columns(result)) - 1)
        rows += [(f"  {device}", [f"{rate:,.0f}", *empty]) for device, rate in result.devices.items()]
    rows += [(peer.name, [*_cells(peer, result), f"{peer.ratio:.2f}"]) for peer in result.peers]
    return rows


def _cells(figures: Figures, result: BenchResult) -> list[str]:
    gpu = [_number(figures.gpu_mb, 0)] * (result.figures.gpu_mb is not None)
    hits = "" if figures.cache_hits is None else f"{figures.cache_hits:.0%}"
    store = [hits, _number(figures.fetched_mb_per_s, 1), _number(figures.store_wait_s, 1)]
    return [
        _number(figures.images_per_s, 0),
        _number(figures.images_per_cpu_s, 0),
        _number(figures.cpu_ms_per_image, 3),
        _number(figures.p50_ms, 1),
        _number(figures.p95_ms, 1),
        _number(figures.p99_ms, 1),
        _number(figures.first_batch_s, 2),
        _number(figures.mb_per_s, 0),
        _number(figures.peak_mb, 0),
        *gpu,
        *store * (result.figures.cache_hits is not None),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _tables(result: BenchResult, width: int) -> list["Table"]:
    """Return one table; two where `width` is too small, the times of batches in the second."""
    lines = [("loader", _columns(result)), *_rows(result)]
    columns = [[name for name, _ in lines], *([line[at] for _, line in lines] for at in range(len(lines[0][1])))]
    for gap in (2, 1):
        if sum(max(map(len, column)) + gap for column in columns) - gap <= width:
            return [_table(columns, gap)]
    names, times = columns[0], [column for column in columns[1:] if column[0] in _TIMES]
    return [_table([column for column in columns if column not in times]), _table([names, *times])]


def _table(columns: Sequence[Sequence[str]], gap: int = 2) -> "Table":
    """Return a table of columns, the first cell of each its title: names on the left, figures on the right."""
    table = new_table(padding=(0, gap, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column[0], justify="right" if number else "left", no_wrap=True)
    for cells in list(zip(*columns, strict=True))[1:]:
        table.add_row(*cells)
    return table


def as_markdown(result: BenchResult) -> str:
    """Return head, table and notes as Markdown, for an issue."""
    head = [f"- {name}: {f'`{text}`' if name == 'command' else text}" for name, text in _head(result)]
    rows = [_line([name.strip(), *cells]) for name, cells in _rows(result)]
    columns = _columns(result)
    notes = [f"- {text}" for text in result.notes]
    return "\n".join([*head, "", _line(["loader", *columns]), "|---|" + "--:|" * len(columns), *rows, "", *notes])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
