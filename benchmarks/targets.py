"""Recorded results -> what was aimed at, what was measured, and whether it was met: `python -m benchmarks.targets`.

Each aim is of the issue that asked for it. What no run has measured says why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.loader_peers.registry import OURS
from benchmarks.recorded import (
    Figure,
    Results,
    against_best,
    at,
    first_of,
    least,
    least_of_rows,
    most_of_rows,
    on_gpu,
    quotient,
    recorded,
    scaling,
    stage,
    times,
    total,
    why_not_on_gpu,
)

NO_GPU = "no GPU"
_SIXTEEN = "images/s of 16 threads to 1"
NOT_YET = "not recorded"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One aim."""

    stage: Literal["shards", "loader", "backends", "training", "audit"]
    what: str
    goal: float
    at_least: bool = True
    """Otherwise it is what must not be exceeded."""
    unit: str = "x"
    figure: Figure = lambda _: None
    unmeasured: str = NOT_YET
    """Why there is no figure, where there is none."""
    reason: Callable[[Results], str | None] = lambda _: None
    """Why there is none in these results, where they say so."""

    def row(self, results: Results) -> tuple[str, str, str, str, str]:
        """Stage, what, target, measured, met."""
        sign = "≥" if self.at_least else "≤"
        found = self.figure(results)
        why = self.reason(results) or self.unmeasured
        measured = f"not measured: {why}" if found is None else self._text(found)
        return self.stage, self.what, f"{sign} {self._text(self.goal)}", measured, self._met(found)

    def _met(self, found: float | None) -> str:
        if found is None:
            return ""
        return "yes" if (found >= self.goal if self.at_least else found <= self.goal) else "**no**"

    def _text(self, value: float) -> str:
        number = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        return f"{number}{self.unit}" if self.unit in ("x", "%") else f"{number} {self.unit}".rstrip()


def _copy(peer: str) -> Figure:
    """Our rate with `--hash xxh128` over the peer's, which hashes nothing."""
    return at("shard_speed", "results", "copy", peer, "ours_against_it")


def _memory(samples: str) -> Figure:
    return at("scale", "peak_memory_by_samples_written", samples, "peak_mb")


def _loaders(group: str, name: str, ratio: str) -> Figure:
    return at("loaders", "results", group, name, ratio)


def _resident(peer: str) -> Figure:
    return least(*(at("resident", "results", dtype, peer, "our_rate_against_it") for dtype in ("uint8", "float32")))


_SHARDS = (
    Target(stage="shards", what="copying, images/s of `tar cf`", goal=0.8, figure=_copy("tar cf")),
    Target(
        stage="shards",
        what="copying with sha256, images/s of `tar cf`",
        goal=0.45,
        figure=at("shard_speed", "results", "copy", "tar cf", "each_against_it", "imgdata hash=sha256"),
    ),
    Target(stage="shards", what="copying, images/s of ShardWriter", goal=4, figure=_copy("webdataset ShardWriter")),
    *(
        Target(stage="shards", what=f"copying, images/s of {peer}", goal=1, figure=_copy(peer))
        for peer in ("ArrayRecord", "HF parquet", "TFRecord", "MDS", "LitData", "FFCV")
    ),
    Target(
        stage="shards",
        what="`--check decode`, images/s of libjpeg-turbo's full decode",
        goal=0.85,
        figure=at("shard_speed", "results", "decode", "libjpeg-turbo full decode", "ours_against_it"),
    ),
    Target(
        stage="shards",
        what="`--resize 256`, images/s of ShardWriter over a pool with Pillow-SIMD",
        goal=1.4,
        figure=at("shard_speed", "results", "resize", "ShardWriter + Pillow pool", "ours_against_it"),
    ),
    Target(
        stage="shards",
        what="`--crop-ready`, photographs of 90 KB, 2 workers",
        goal=1500,
        unit="images/s",
        figure=most_of_rows("crop_ready", "sharding", "images_per_s", writer="imgdata crop-ready"),
    ),
    Target(
        stage="shards",
        what="memory of the plan for each sample",
        goal=200,
        at_least=False,
        unit="bytes",
        figure=at("scale", "listing_and_plan", "plan_bytes_per_sample"),
    ),
    Target(
        stage="shards",
        what="listing and planning 1,281,167 samples",
        goal=60,
        at_least=False,
        unit="s",
        figure=total(at("scale", "listing_and_plan", "list_s"), at("scale", "listing_and_plan", "plan_s")),
    ),
    Target(
        stage="shards",
        what="peak of memory with 128,000 samples written, to that with 32,000 (flat)",
        goal=1.1,
        at_least=False,
        figure=quotient(_memory("128000"), _memory("32000")),
    ),
    Target(
        stage="shards",
        what="opening an index of 1,281,167 samples, with the first sample",
        goal=0.5,
        at_least=False,
        unit="s",
        figure=stage("imgdata.open, one sample", "median_s"),
    ),
    Target(
        stage="shards",
        what="one random sample of them",
        goal=1,
        at_least=False,
        unit="ms",
        figure=times(
            quotient(stage("imgdata, random samples", "median_s"), stage("imgdata, random samples", "images")), 1000
        ),
    ),
)

_LOADER = (
    Target(
        stage="loader",
        what="uint8, 2 threads: CPU time of the best loader that antialiases",
        goal=0.65,
        at_least=False,
        figure=against_best("uint8_2"),
    ),
    Target(
        stage="loader",
        what="uint8, 2 threads: CPU time of tf.data without antialiasing",
        goal=0.95,
        at_least=False,
        figure=_loaders("uint8_2", "tf.data without antialias", "our_cpu_against_it"),
    ),
    Target(
        stage="loader",
        what="uint8, 2 threads: images/s of bare crop decoding",
        goal=0.85,
        figure=_loaders("uint8_2", "bare crop decode", "our_rate_against_it"),
    ),
    *(
        Target(
            stage="loader",
            what=f"{files}, {dtype}: CPU time of libjpeg-turbo on the plain file's crop, worst quality",
            goal=goal,
            at_least=False,
            figure=most_of_rows("crop_ready", "rows", f"{dtype}_of_bare", interval=interval),
        )
        for files, interval, goal in (("plain files", "plain", 0.92), ("crop-ready files", "2", 0.62))
        for dtype in ("uint8", "float32")
    ),
    Target(
        stage="loader",
        what="float32, 2 threads: CPU time of the best loader that antialiases",
        goal=0.65,
        at_least=False,
        figure=against_best("float32_2"),
    ),
    *(
        Target(
            stage="loader",
            what=f"images/s of 2 threads to 1, {dtype}",
            goal=1.9,
            figure=at("loaders", "scaling", dtype, OURS),
        )
        for dtype in ("uint8", "float32")
    ),
    Target(
        stage="loader",
        what=_SIXTEEN,
        goal=14,
        figure=first_of(scaling(16), on_gpu("threads")),
        unmeasured="fewer than 16 cores",
        reason=why_not_on_gpu("threads"),
    ),
    Target(
        stage="loader",
        what="Python's share of a batch of 256",
        goal=2,
        at_least=False,
        unit="ms",
        figure=at("loaders", "ours", "python_threads_cpu_ms_per_batch"),
    ),
    Target(
        stage="loader",
        what="time to the first batch",
        goal=0.5,
        at_least=False,
        unit="s",
        figure=at("loaders", "ours", "first_batch_s"),
    ),
    Target(
        stage="loader",
        what="time to the first batch at step 4,000 of 5,000, to that at step 0",
        goal=1.1,
        at_least=False,
        figure=quotient(at("loaders", "ours", "resume_s"), at("loaders", "ours", "start_s")),
    ),
)

_BACKENDS = (
    Target(
        stage="backends",
        what="DALI on the CPU: CPU time of a pipeline written by hand",
        goal=1.05,
        at_least=False,
        figure=at("dali_overhead", "cpu_ratio"),
    ),
    Target(
        stage="backends",
        what="resident, CIFAR-10 on the CPU: images/s of torchvision",
        goal=5,
        figure=_resident("torchvision"),
    ),
    Target(
        stage="backends", what="resident, CIFAR-10 on the CPU: images/s of FFCV (raw)", goal=1, figure=_resident("FFCV")
    ),
)

_TRAINING = (
    Target(
        stage="training",
        what="5,000 digits: top-1 of `cnn` on a held-out fifth",
        goal=97.5,
        unit="%",
        figure=times(at("pipelines", "p0", "test", "top1"), 100),
    ),
    Target(
        stage="training",
        what="emojis: top-1 of `resnet9` on emojis that it has not seen",
        goal=70,
        unit="%",
        figure=times(at("emoji", "summary", "top1"), 100),
    ),
    Target(
        stage="training",
        what="emojis: top-1 of Lite0's weights, fine-tuned, to that of `cnn` from scratch",
        goal=1,
        figure=quotient(at("pipelines", "p4", "summary", "top1"), at("pipelines", "p4", "scratch", "top1")),
    ),
)


def _on_gpu(
    key: str,
    what: str,
    goal: float,
    *,
    stage: Literal["loader", "backends", "training"] = "backends",
    at_least: bool = True,
    unit: str = "x",
) -> Target:
    """Return a target that `make gpu` measures, under this name in its figures."""
    return Target(
        stage=stage,
        what=what,
        goal=goal,
        at_least=at_least,
        unit=unit,
        figure=on_gpu(key),
        unmeasured=NO_GPU,
        reason=why_not_on_gpu(key),
    )


_SYNTHETIC = "images/s of the same with batches that stay there"
_ON_GPU = (
    *(
        _on_gpu(
            f"loader_{dtype}",
            f"GPU, {dtype}: images/s of the best of DALI by hand, torchvision and TorchCodec",
            1,
        )
        for dtype in ("float16", "uint8")
    ),
    _on_gpu("decoding", "GPU: images/s of decoding alone", 0.95),
    _on_gpu("python_us", "GPU: Python's time for an image through DALI", 18, at_least=False, unit="us"),
    _on_gpu("memory", "GPU: memory after 10 epochs to that after 1", 1.02, at_least=False),
    *(
        _on_gpu(name, f"{name}, 224x224, bf16 on a GPU: {_SYNTHETIC}", goal, stage="training")
        for name, goal in (("resnet50", 0.97), ("resnet18", 0.95))
    ),
    *(
        _on_gpu(
            f"resnet9_{batch}",
            f"resnet9, resident, batches of {batch:,} on a GPU: {_SYNTHETIC}",
            0.95,
            stage="training",
        )
        for batch in (1024, 512)
    ),
    _on_gpu(
        "resident",
        "resnet9, resident, batches of 1,024 on a GPU, compiled or not: images/s",
        150_000,
        stage="training",
        unit="images/s",
    ),
)

_AUDIT = (
    Target(
        stage="audit",
        what="50,000 JPEGs of 500x375 on 2 cores: hashes, duplicates and quality",
        goal=60,
        at_least=False,
        unit="s",
        figure=times(quotient(at("audit_speed", "results", "imgdata", "seconds"), at("audit_speed", "images")), 50_000),
    ),
)

_REMOTE = (
    Target(
        stage="loader",
        what="object store, 2 cores: images/s of the first epoch, to the best of LitData, Streaming, webdataset",
        goal=1.3,
        figure=least_of_rows("remote", "our_first_against_it", without="imgdata, from a folder"),
    ),
    Target(
        stage="loader",
        what="object store: images/s of later epochs, to those from a folder",
        goal=0.97,
        figure=at("remote", "results", "imgdata, from a folder", "our_second_against_it"),
    ),
)

TARGETS = (*_SHARDS, *_LOADER, *_REMOTE, *_BACKENDS, *_TRAINING, *_AUDIT, *_ON_GPU)
GPU_TARGETS = (*_ON_GPU, next(target for target in _LOADER if target.what == _SIXTEEN))
"""Those that `make gpu` is for: it has 16 cores beside the GPU as well."""


def markdown(results: Results) -> str:
    """Return a table of all targets, and how many were met."""
    rows = [target.row(results) for target in TARGETS]
    met = [row[-1] for row in rows]
    lines = ["| | | target | measured | met |", "|---|---|--:|--:|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    count = f"{met.count('yes')} of {len(met)} are met, {met.count('**no**')} missed, {met.count('')} not measured."
    return "\n".join([*lines, "", count])


if __name__ == "__main__":
    print(markdown(recorded()))
