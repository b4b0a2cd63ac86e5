"""Times of stages -> the highest rate of the pipeline, and the stage that limits it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from imgdata.backends.protocol import BackendKind
from imgdata.backends.registry import reference_kind
from imgdata.measure.doctor.stages import StageTimes
from imgdata.measure.machine.disk import DiskRates
from imgdata.measure.machine.store import StoreRates
from imgdata.measure.timing import Rate

Lane = Literal["disk", "store", "cpu", "loader", "copy", "device"]
"""A resource that works beside others: the slowest lane limits the rate. Stages of the lane `cpu` share the cores."""

LANES: dict[Lane, str] = {
    "disk": "the disk",
    "store": "the object store",
    "cpu": "the processor",
    "loader": "the loader",
    "copy": "the copy to the device",
    "device": "the network",
}
SOURCES: tuple[Lane, ...] = ("disk", "store")
"""Lanes that encoded images come by."""
USUAL_WINDOW = 16
"""Shards of a loader's window, by default."""
_TOGETHER = "the resize spares what it costs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A row of the table."""

    name: str
    lane: Lane
    images_per_s: float
    """Images/s of the stage alone, with all threads."""
    ms_per_image: float
    """Milliseconds of a core where the lane is `cpu`, of the lane otherwise."""
    per_core: float | None = None
    """Images/s of one core."""
    mb_per_s: float | None = None
    counted: bool = True
    """Whether the stage is part of this pipeline; other stages are shown for comparison."""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """All stages, and how they share the machine."""

    stages: tuple[Stage, ...]
    threads: int
    """Threads of the loader."""
    cores: float
    """Cores that this process can use."""
    measured: Rate
    """Rate of the real loader, without a network."""
    model_on_cpu: bool = False
    """Whether the network takes the same cores as the loader."""
    streams: bool = True
    """Whether the backend does its work in the stages of `cpu`; otherwise its measured rate is all that is known."""

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of a core for all that the loader does for one image."""
        return sum(stage.ms_per_image for stage in self.stages if stage.lane == "cpu" and stage.counted)

    @property
    def width(self) -> float:
        """Cores that the loader can keep busy."""
        return min(self.threads, self.cores)

    @property
    def predicted(self) -> float:
        """Images/s of the loader alone, by its stages: threads / sum of ms; at most what disk or store gives."""
        if not self.streams:
            return self.alone
        return min([1000 * self.width / self.cpu_ms, *self._rates(*SOURCES)])

    @property
    def taken(self) -> float:
        """Cores that the loader was ready to use in its run, and that other programs had."""
        # Beyond its width its own threads wait for each other.
        return max(0.0, min(self.measured.denied, self.width - self.measured.cores))

    @property
    def alone(self) -> float:
        """The measured rate, had the loader had those too."""
        cores = self.measured.cores
        return self.measured.images_per_s * (cores + self.taken) / cores if cores else self.measured.images_per_s

    def ceiling(self, loader: float | None = None) -> tuple[float, Lane]:
        """Return images/s of training, and the lane that sets it; of the loader alone where there is no network.

        `loader` is another rate of the loader than `predicted`, with what its disk allows.
        """
        rate = self.predicted if loader is None else loader
        lane: Lane = "cpu" if self.streams else "loader"
        for source in SOURCES:
            if self.streams and rate >= min(self._rates(source), default=float("inf")):
                lane = source
        model = min(self._rates("device"), default=float("inf"))
        if self.model_on_cpu:
            # One after the other on the same cores.
            return 1 / (1 / rate + 1 / model), "device" if model < rate else lane
        lanes: list[tuple[float, Lane]] = [(rate, lane), (model, "device")]
        lanes += [(copied, "copy") for copied in self._rates("copy")]
        return min(lanes, key=lambda pair: pair[0])

    def slowest(self) -> Stage:
        """Return the stage that is worth most to shorten."""
        _, lane = self.ceiling()
        return min(
            (stage for stage in self.stages if stage.counted and stage.lane == lane), key=lambda s: s.images_per_s
        )

    def share(self, stage: Stage) -> float:
        """Return the stage's share of the processor's time for one image."""
        return stage.ms_per_image / self.cpu_ms if stage.lane == "cpu" and self.cpu_ms else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the bottleneck as plain values, for JSON."""
        ceiling, lane = self.ceiling()
        slowest = self.slowest()
        return {
            "stage": slowest.name,
            "lane": lane,
            "share": self.share(slowest),
            "ceiling_images_per_s": ceiling,
            "predicted_images_per_s": self.predicted,
            "measured_images_per_s": self.measured.images_per_s,
            "measured_cpu_ms_per_image": self.measured.cpu_ms,
            "measured_cores": self.measured.cores,
            "cores_taken_by_others": self.taken,
            "undisturbed_images_per_s": self.alone,
            "threads": self.threads,
            "cores": self.cores,
        }

    def _rates(self, *lanes: Lane) -> list[float]:
        return [stage.images_per_s for stage in self.stages if stage.lane in lanes and stage.counted]


def list_stages(
    times: StageTimes,
    disk: DiskRates,
    *,
    width: float,
    kind: BackendKind,
    memory_bytes: int,
    measured: Rate,
    dtype: str,
    copy_ms: float | None = None,
    step_ms: float | None = None,
    model: str = "",
) -> tuple[Stage, ...]:
    """Return the rows of the table, in the order in which an image passes them.

    `width` is how many cores the loader keeps busy. The disk counts where the split is larger than the `memory_bytes`
    that may cache it: each epoch is then read from it, and not the first alone.
    """
    fits = disk.split_bytes <= memory_bytes
    rows: list[Stage] = []
    if disk.store is not None:
        rows.append(_store_stage(disk, disk.store))
    elif disk.cold is not None:
        rows.append(
            Stage(
                name="read from disk",
                lane="disk",
                images_per_s=disk.cold.images_per_s,
                ms_per_image=1000 / disk.cold.images_per_s,
                mb_per_s=disk.cold.mb_per_s,
                counted=not fits,
                note="first epoch alone: fits into memory" if fits else "larger than memory",
            )
        )
    rows += _cpu_stages(times, disk, width, kind, dtype)
    if not kind.is_reference:
        rows.append(
            Stage(
                name=f"{kind.name} loader",
                lane="loader",
                images_per_s=measured.images_per_s,
                ms_per_image=1000 / measured.images_per_s,
                note="measured as a whole",
            )
        )
    if copy_ms is not None:
        rows.append(Stage(name="copy to device", lane="copy", images_per_s=1000 / copy_ms, ms_per_image=copy_ms))
    if step_ms is not None:
        rows.append(
            Stage(
                name=model,
                lane="device",
                images_per_s=1000 / step_ms,
                ms_per_image=step_ms,
                note="steps on batches that are there",
            )
        )
    return tuple(rows)


def _store_stage(disk: DiskRates, store: StoreRates) -> Stage:
    """Return the row of an object store: it counts in each epoch where the cache of shards can't hold the split."""
    window_fits = store.cache_bytes >= min(disk.split_bytes, USUAL_WINDOW * store.shard_bytes)
    read = disk.cold_in_order if window_fits else disk.cold
    assert read is not None
    if disk.split_bytes <= store.cache_bytes:
        note = "first epoch alone: the cache of shards holds the split"
    elif store.cache:
        note = f"more than the cache of shards holds, {'whole shards' if window_fits else 'by ranges'}"
    else:
        note = "nothing is kept, by ranges"
    return Stage(
        name="read from store",
        lane="store",
        images_per_s=read.images_per_s,
        ms_per_image=1000 / read.images_per_s,
        mb_per_s=read.mb_per_s,
        counted=disk.split_bytes > store.cache_bytes,
        note=note,
    )


def _cpu_stages(times: StageTimes, disk: DiskRates, width: float, kind: BackendKind, dtype: str) -> list[Stage]:
    if kind.is_reference:
        by = ""
    elif kind.decodes_once:
        by = "once, not in every epoch"
    else:
        by = f"for comparison: by the {reference_kind().name} backend"
    together = not times.resize_ms
    listed: list[tuple[str, float, str]] = [
        ("read", times.read_ms, "from the page cache"),
        ("full decode", times.full_decode_ms, "for comparison: whole pictures"),
        ("decode, resize" if together else "decode", times.decode_ms, _TOGETHER if together else "of the crop"),
        ("resize, flip", times.resize_ms, ""),
        ("operators", times.operators_ms, "rotation and colour, by Pillow"),
        ("finish", times.finish_ms, "paint over, mix" if dtype == "uint8" else f"normalise, to {dtype}"),
    ]
    return [
        Stage(
            name=name,
            lane="cpu",
            images_per_s=1000 * width / ms,
            ms_per_image=ms,
            per_core=1000 / ms,
            mb_per_s=disk.warm.mb_per_s if name == "read" else None,
            counted=kind.is_reference and name != "full decode",
            note=note if name == "full decode" else by or note,
        )
        for name, ms, note in listed
        if ms
    ]
