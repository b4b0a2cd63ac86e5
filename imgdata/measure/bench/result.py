"""What was measured in each round -> medians, ratios of neighbours, and the whole result as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import mean, median
from typing import Any

from imgdata.measure.bench.job import Measured
from imgdata.measure.bench.rounds import median_ratio


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of one loader: medians over the rounds. With several GPUs: of all together."""

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
    """From opening the dataset to the first batch; imports left out."""
    mb_per_s: float | None
    """Encoded images read, in 10^6 bytes; None where they are kept decoded."""
    peak_mb: float
    """Most memory of the process, with what its worker processes have for themselves, in 10^6 bytes."""
    gpu_mb: float | None
    """Memory taken on the GPU, in 10^6 bytes; None without one."""
    warm_up_batches: int
    """Not measured, at least."""
    batches: int
    """Measured in a round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerFigures(Figures):
    """Of another loader."""

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
    """Of our loader."""
    peers: tuple[PeerFigures, ...]
    """In the order in which they were asked for."""
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
    """Of each process."""
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
    """What has to be said with the figures."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; our loader's figures stand at the top."""
        content = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("figures", "peers")}
        return {**asdict(self.figures), **content, "peers": [asdict(peer) for peer in self.peers]}


def together(measured: Sequence[Measured]) -> Measured:
    """What processes came to that ran at the same time: rates and memory add up, times of batches are in the middle."""
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
    )


def figures(rounds: Sequence[Measured], *, mean_bytes: float | None) -> Figures:
    """Medians over the rounds; `mean_bytes` is an encoded image's, None where images are not read any more."""
    return Figures(**_medians(rounds, mean_bytes))


def peer_figures(
    rounds: Sequence[Measured], ours: Sequence[Measured], *, name: str, configuration: str, mean_bytes: float
) -> PeerFigures:
    """The same of another loader, with the medians of the ratios of each round."""
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
    }


def _cpu_ms(measured: Measured) -> float | None:
    return None if measured.cpu_s is None else 1000 * measured.cpu_s / measured.images


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if len(known) == len(values) else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
