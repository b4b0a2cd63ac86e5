"""What was measured -> what has to be said with the figures, in lines."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from imgdata.measure.bench.job import Decided, Measured
from imgdata.measure.bench.options import BenchOptions
from imgdata.measure.bench.result import PeerFigures


def notes(
    options: BenchOptions,
    rounds: Sequence[Sequence[Measured]],
    peers: Sequence[PeerFigures],
    left_out: Mapping[str, str],
    decided: Decided,
    *,
    remote: bool = False,
) -> Iterator[str]:
    """Yield what has to be said; `rounds` has for each round of our loader what its processes measured.

    `remote` says that the dataset is in an object store.
    """
    runs = [run for processes in rounds for run in processes]
    turns = ", in turns; ratios are medians of pairs of the same round" if peers else ""
    times = f"medians of {options.rounds} rounds" if options.rounds > 1 else "one round"
    yield f"{times} of {options.seconds:g} s, each in a process of its own{turns}"
    first_s = median(run.first_batch_s for run in runs)
    warm_up = min(run.warm_up_batches for run in runs) - 1
    yield f"first batch {first_s:.2f} s and {warm_up} batches of warm-up or more not counted"
    yield "p50, p95, p99: from one batch to the next; CPU: all threads and child processes; first: imports left out"
    if max(run.batches for run in runs) >= decided.batches_per_epoch:
        batches = f"{decided.batches_per_epoch:,} batch{'es' if decided.batches_per_epoch > 1 else ''}"
        yield f"an epoch has only {batches}; its end, where nothing is made ahead, counts"
    if remote:
        yield (
            "from an object store, in windows of shards; hits: images that were kept on this machine already, where "
            "rounds and runs before have left theirs; store s: batches waited for it, all together"
        )
    if options.ranks > 1:
        yield f"rank 0 of {options.ranks:,}; the others are not there, and take nothing"
    if decided.kind.decodes_once:
        yield "imgdata decoded the images before the first batch, and reads them no more"
    bad = max(run.bad for run in runs)
    if bad:
        yield f"{bad:,} images could not be decoded; others took their places"
    for peer in peers:
        yield f"{peer.name} {peer.version}: {peer.configuration}"
    for name, reason in left_out.items():
        yield f"{name} left out: {reason}"
