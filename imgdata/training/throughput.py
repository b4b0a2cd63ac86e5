"""A dataset, settings -> images/s of training with the loader, and with batches that are on the device already."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from imgdata.errors import OptionError
from imgdata.sample import Batch
from imgdata.training.distributed import processes
from imgdata.training.learner import Learner
from imgdata.training.options import TrainOptions
from imgdata.training.setup import Prepared, prepare
from imgdata.training.timing import Clock

_WARM_UP_STEPS = 5
"""Before anything is timed: memory is allocated, kernels are chosen or compiled, the loader's threads start. And before
each round: batches that were made ahead meanwhile would flatter the loader."""
_HELD_BATCHES = 2
"""Different batches that stay on the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndToEnd:
    """Speed of training with the loader and without it; medians over the rounds, over all ranks."""

    real_images_per_s: float
    """Images/s with the loader."""
    synthetic_images_per_s: float
    """Images/s with batches that are on the device already."""
    ratio: float
    """real / synthetic of neighbouring rounds: 1 when the network never waits."""
    data_wait: float
    """Share of the time with the loader in which the network waited for a batch, on this rank."""
    rounds: int
    steps: int
    """Steps of a round."""
    batch_size: int
    """Samples of a step, over all ranks."""
    config: dict[str, Any]
    """Contents of the `config.json` of such a run."""


def end_to_end(
    dataset: str | Path,
    options: TrainOptions | None = None,
    *,
    rounds: int = 3,
    steps: int = 50,
    progress: Callable[[int, int], None] = lambda done, rounds: None,
) -> EndToEnd:
    """Time rounds of `steps` steps with the loader and without it, alternately; nothing is validated or kept.

    Both train the same network with the same settings. `progress` gets how many of the rounds are done. Raises
    `OptionError`, `ShardError`, `TrainingError`.
    """
    if rounds < 1 or steps < 1:
        raise OptionError(f"rounds and steps must be 1 or more, got {rounds} and {steps}")
    given = options or TrainOptions()
    with processes(given.device) as ranks, prepare(Path(dataset), given, ranks) as prepared:
        learner = Learner(prepared.model, prepared.options, ranks, prepared.weight_C)
        learner.begin_epoch()
        clock, real = Clock(ranks.device), _batches(prepared)
        held = itertools.cycle(list(itertools.islice(real, _HELD_BATCHES)))
        warm_up = max(_WARM_UP_STEPS, prepared.options.prefetch + 1)
        pairs, waits = [], []
        for number in range(rounds):
            _steps(learner, real, warm_up, prepared, clock)
            seconds, waited = _steps(learner, real, steps, prepared, clock)
            _steps(learner, held, warm_up, prepared, clock)
            pairs.append((seconds, _steps(learner, held, steps, prepared, clock)[0]))
            waits.append(waited / seconds)
            progress(number + 1, rounds)
        samples = steps * prepared.options.batch_size
        return EndToEnd(
            real_images_per_s=samples / median(with_loader for with_loader, _ in pairs),
            synthetic_images_per_s=samples / median(without for _, without in pairs),
            ratio=median(without / with_loader for with_loader, without in pairs),
            data_wait=median(waits),
            rounds=rounds,
            steps=steps,
            batch_size=prepared.options.batch_size,
            config={**prepared.config(), "world_size": ranks.world_size, "device": str(ranks.device)},
        )


def _batches(prepared: Prepared) -> Iterator[Batch]:
    """Yield batches without end, always of the last epoch, whose pictures are largest where they grow."""
    while True:
        prepared.train.set_epoch(prepared.options.epochs - 1)
        yield from prepared.train


def _steps(
    learner: Learner, source: Iterator[Batch], steps: int, prepared: Prepared, clock: Clock
) -> tuple[float, float]:
    """Return (seconds, seconds of waiting) of so many steps."""
    clock.restart()
    for number in range(steps):
        clock.waits()
        batch = next(source)
        clock.has_batch()
        # A rate too low to lead anywhere: what is learned from two batches again and again must not reach infinity.
        learner.step(batch.images, batch.labels, number=number, lr=1e-6 * prepared.options.lr)
    return clock.take()
