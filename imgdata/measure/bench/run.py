"""A dataset, settings -> each loader measured alternately -> the result."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from imgdata.backends.options import LoaderOptions, or_default
from imgdata.dataset.dataset import Dataset
from imgdata.devices import own_cores
from imgdata.errors import ImgdataError, OptionError
from imgdata.loader.remote_cache import usual_shuffle
from imgdata.loose.asked import asked_for
from imgdata.loose.opened import open as open_dataset
from imgdata.measure.bench.job import OURS, Job, Measured
from imgdata.measure.bench.notes import notes
from imgdata.measure.bench.options import BenchOptions, ready_recipe, recipe_name
from imgdata.measure.bench.peers import PEERS, READ_TARS
from imgdata.measure.bench.processes import run_together
from imgdata.measure.bench.result import BenchResult, PeerFigures, figures, peer_figures, together
from imgdata.measure.bench.rounds import in_turns
from imgdata.recipes.recipe import Recipe
from imgdata.sources.options import SourceOptions
from imgdata.storage.remote_folder import RemoteFolder

_USUAL_BATCH = 256
_START_S = 300.0
"""Seconds that another loader may take beside three times the measured time, before it is stopped."""


def bench(
    dataset: str | Path,
    options: BenchOptions | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, runs: None,
) -> BenchResult:
    """Measure the loader on the dataset in the folder `dataset`, and those of `options.compare` beside it.

    Every run is a process of its own; another loader begins each round. One that can't do the recipe, is not installed
    or fails is left out and named in `left_out`. `progress` gets how many runs are done, and of how many. Raises
    `OptionError`, `ShardError`, `MissingExtraError`, and `ImgdataError` where our own process fails.
    """
    given = options or BenchOptions()
    recipe, devices = ready_recipe(given), _devices(given)
    opened = open_dataset(dataset)
    batch_size = _batch_size(opened, given, len(devices))
    # Here, since it imports PyTorch.
    from imgdata.measure.bench.ours import decide

    job = _job(dataset, given, batch_size, recipe, devices)
    first = decide(job)
    jobs = [
        replace(job, options=replace(job.options, device=device), rank=rank)
        for rank, device in enumerate([job.options.device, *devices[1:]])
    ]
    left_out = _refused(given, recipe, job)
    if opened.is_loose:
        # Our own, and torchvision's, read files by our index.
        left_out |= {
            name: f"it reads tars: `imgdata shard {dataset} OUT`, and give OUT"
            for name in given.compare
            if name in READ_TARS
        }
    remote = isinstance(opened.folder, RemoteFolder)
    if remote:
        left_out |= {name: "it is given files of this machine, and the dataset is at a URL" for name in given.compare}
    rounds = _rounds(jobs, given, left_out, progress)
    own = [together(measured) for measured in rounds[OURS]]
    sizes = opened[given.split].index.array("size")
    mean_bytes = float(sizes.mean())
    peers = tuple(_peer(name, rounds[name], own, job, mean_bytes) for name in given.compare if name in rounds)
    from imgdata.measure.machine.host import loader_versions, machine_summary

    return BenchResult(
        figures=figures(own, mean_bytes=None if first.kind.decodes_once else mean_bytes),
        peers=peers,
        left_out=left_out,
        devices=_by_device([one.options.device for one in jobs], rounds[OURS]),
        backend=first.kind.name,
        backend_description=first.description,
        device=f"cuda x {len(jobs)}" if given.all_gpus else job.options.device,
        batch_size=batch_size,
        threads=job.options.threads,
        dtype=job.options.dtype,
        ranks=job.world_size,
        seconds=given.seconds,
        rounds=given.rounds,
        dataset={
            "name": opened.name,
            "split": given.split,
            "samples": len(sizes),
            "shards": len(opened[given.split].shards),
            "mean_bytes": round(mean_bytes),
            "batches_per_epoch": first.batches_per_epoch,
        },
        recipe={
            "name": recipe_name(given),
            "ops": [type(op).__name__ for op in recipe.ops],
            "size": list(recipe.output_size(0)),
            "content": recipe.to_dict(),
        },
        command=given.command(dataset, SourceOptions.from_dict(asked_for(dataset)).flags()),
        versions={**loader_versions(), **{peer.name: peer.version for peer in peers}},
        machine=machine_summary([one.options.device for one in jobs]),
        notes=tuple(notes(given, rounds[OURS], peers, left_out, first, remote=remote)),
    )


def _devices(options: BenchOptions) -> list[str]:
    """Return where the batches are wanted: one device, or every GPU. Raises `OptionError`."""
    if not options.all_gpus and options.device != "auto":
        return [options.device]
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not options.all_gpus:
        return ["cuda:0" if count else "cpu"]
    if not count:
        raise OptionError(
            "all_gpus needs a GPU that PyTorch can use, got none; leave it out, or install NVIDIA's driver and a "
            "PyTorch with CUDA"
        )
    return [f"cuda:{number}" for number in range(count)]


def _job(dataset: str | Path, options: BenchOptions, batch_size: int, recipe: Recipe, devices: Sequence[str]) -> Job:
    """Return the job of our loader on the first device; the cores are divided among the devices."""
    cores = len(own_cores())
    return Job(
        loader=OURS,
        dataset=str(dataset),
        split=options.split,
        options=LoaderOptions(
            batch_size=batch_size,
            recipe=recipe,
            device=devices[0],
            backend=options.backend,
            dtype=or_default(options.dtype),
            threads=max(1, cores // len(devices)) if options.threads is None else options.threads,
            shuffle=usual_shuffle(dataset),
            cache=options.cache,
        ),
        rank=0,
        world_size=len(devices) if options.all_gpus else options.ranks,
        seconds=options.seconds,
        read=asked_for(dataset),
    )


def _batch_size(dataset: Dataset, options: BenchOptions, devices: int) -> int:
    if options.split not in dataset:
        raise OptionError(f"split must be one of {', '.join(dataset)}, got {options.split!r}")
    samples, world_size = len(dataset[options.split]), options.ranks * devices
    most = samples // world_size
    batch_size = min(_USUAL_BATCH, max(1, most)) if options.batch_size is None else options.batch_size
    if batch_size > most:
        ranks = f" for {world_size:,} ranks" if world_size > 1 else ""
        raise OptionError(
            f"batch_size must be at most {most:,}, as {options.split} has {samples:,} "
            f"samples{ranks}, got {batch_size:,}; make it smaller"
        )
    return batch_size


def _refused(options: BenchOptions, recipe: Recipe, job: Job) -> dict[str, str]:
    """Return the other loaders that can't do that here, with the reasons."""
    reasons = {name: PEERS[name].refuses(recipe, job.options.dtype, job.options.device) for name in options.compare}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _rounds(
    jobs: Sequence[Job],
    options: BenchOptions,
    left_out: dict[str, str],
    progress: Callable[[int, int], None],
) -> dict[str, list[list[Measured]]]:
    """Return by loader, for each round, what its processes measured. A peer that fails goes into `left_out`."""
    names = [OURS, *(name for name in options.compare if name not in left_out)]
    rounds: dict[str, list[list[Measured]]] = {name: [] for name in names}
    for done, name in enumerate(in_turns(names, options.rounds)):
        progress(done, options.rounds * len(names))
        if name in left_out:
            continue
        try:
            limit_s = None if name == OURS else _START_S + 3 * options.seconds
            rounds[name].append(run_together([replace(one, loader=name) for one in jobs], limit_s=limit_s))
        except ImgdataError as error:
            if name == OURS:
                raise
            # It must not cost the figures of the others.
            left_out[name] = f"failed: {error}"
            del rounds[name]
    progress(options.rounds * len(names), options.rounds * len(names))
    return rounds


def _peer(name: str, rounds: list[list[Measured]], own: list[Measured], job: Job, mean_bytes: float) -> PeerFigures:
    return peer_figures(
        [together(measured) for measured in rounds],
        own,
        name=name,
        configuration=PEERS[name].configured(job.options.threads),
        mean_bytes=mean_bytes,
    )


def _by_device(devices: Sequence[str], rounds: list[list[Measured]]) -> dict[str, float]:
    columns = zip(*rounds, strict=True)
    return {
        device: figures(column, mean_bytes=None).images_per_s for device, column in zip(devices, columns, strict=True)
    }
