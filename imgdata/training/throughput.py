"""A dataset, settings -> images/s of training with the loader, and with batches that are on the device already."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from imgdata.errors import OptionError
from imgdata.sample import Batch
from imgdata.storage.local_paths import any_path
from imgdata.training.defaults import DecidedOptions
from imgdata.training.distributed import Processes, processes
from imgdata.training.learner import Learner
from imgdata.training.network import image_type, make_network
from imgdata.training.options import TrainOptions
from imgdata.training.setup import Prepared, prepare
from imgdata.training.timing import Clock

_WARM_UP_STEPS = 5
"""Before anything is timed: memory is allocated, kernels are chosen or compiled, the loader's threads start. And before
each round: batches that were made ahead meanwhile would flatter the loader."""
_LR = 1e-9
"""A rate too low to lead anywhere: what is learned from two batches again and again must not reach infinity."""
_HELD_BATCHES = 2
"""Different batches that stay on the device."""
_FEW_STEPS, _MOST_STEPS = 3, 500
_STEPS_S = 1.0
"""Seconds of steps from which on a mean of them is good enough."""


class _Held(NamedTuple):
    """A batch that stays on the device."""

    images: torch.Tensor
    labels: torch.Tensor


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
    with opened_steps(dataset, options or TrainOptions()) as trained:
        pairs, waits = [], []
        for number in range(rounds):
            trained.warm_up(real=True)
            seconds, waited = trained.take(steps, real=True)
            trained.warm_up(real=False)
            pairs.append((seconds, trained.take(steps, real=False)[0]))
            waits.append(waited / seconds)
            progress(number + 1, rounds)
        prepared, ranks = trained.prepared, trained.ranks
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


class TimedSteps:
    """Steps of a run, with its loader (real) or with batches that stay on the device.

    Before each measurement of one kind, `warm_up` takes the batches that were made ahead.
    """

    def __init__(self, prepared: Prepared, ranks: Processes) -> None:
        self.prepared, self.ranks = prepared, ranks
        self._learner = Learner(prepared.model, prepared.options, ranks, prepared.weight_C)
        self._learner.begin_epoch()
        self._clock, self._real = Clock(ranks.device), _batches(prepared)
        self._held = itertools.cycle(list(itertools.islice(self._real, _HELD_BATCHES)))

    def warm_up(self, *, real: bool) -> None:
        """Take more steps than there are batches that were made ahead."""
        self.take(max(_WARM_UP_STEPS, self.prepared.options.prefetch + 1), real=real)

    def take(self, steps: int, *, real: bool) -> tuple[float, float]:
        """Take so many steps; return (seconds, seconds of waiting for batches), once the device has done them."""
        return _steps(self._learner, self._real if real else self._held, steps, self._clock)


@contextmanager
def opened_steps(dataset: str | Path, options: TrainOptions) -> Iterator[TimedSteps]:
    """Yield the steps of a run with these settings. Raises `OptionError`, `ShardError`."""
    with processes(options.device) as ranks, prepare(any_path(dataset), options, ranks) as prepared:
        yield TimedSteps(prepared, ranks)


def synthetic_step_s(
    options: DecidedOptions, *, num_classes: int, height_width: tuple[int, int], device: torch.device
) -> float:
    """Return seconds of a step on batches that are on the device already, prepared as a run prepares everything.

    So the network's layout, the search for kernels, the arithmetic and the type of the images are those of a run. The
    pictures are random, since a GPU is faster with zeros, and nothing waits for the device between the steps. Raises
    `OptionError`, `MissingExtraError`, and `TrainingError` where memory is out.
    """
    ranks = Processes(rank=0, world_size=1, device=device)
    learner = Learner(make_network(options, num_classes, min(height_width), ranks), options, ranks)
    learner.begin_epoch()
    held = itertools.cycle([_random_batch(options, num_classes, height_width, device) for _ in range(_HELD_BATCHES)])
    clock = Clock(device)
    # On the processor no kernels are chosen, and a step may take seconds.
    _steps(learner, held, _WARM_UP_STEPS if device.type == "cuda" else 2, clock)
    seconds, _ = _steps(learner, held, _FEW_STEPS, clock)
    if seconds >= _STEPS_S:
        return seconds / _FEW_STEPS
    steps = min(_MOST_STEPS, round(_STEPS_S * _FEW_STEPS / seconds))
    return _steps(learner, held, steps, clock)[0] / steps


def _random_batch(
    options: DecidedOptions, num_classes: int, height_width: tuple[int, int], device: torch.device
) -> _Held:
    """Return normalised noise and labels, in the type and the layout that a run's loader makes."""
    dtype = getattr(torch, image_type(options.amp, device))
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    images = torch.randn((options.batch_size, 3, *height_width), device=device)
    labels = torch.randint(num_classes, (options.batch_size,), device=device)
    return _Held(images.to(dtype).to(memory_format=layout), labels)


def _batches(prepared: Prepared) -> Iterator[Batch]:
    """Yield batches without end, always of the last epoch, whose pictures are largest where they grow."""
    while True:
        prepared.train.set_epoch(prepared.options.epochs - 1)
        yield from prepared.train


def _steps(learner: Learner, source: Iterator[Batch | _Held], steps: int, clock: Clock) -> tuple[float, float]:
    """Return (seconds, seconds of waiting) of so many steps."""
    clock.restart()
    for number in range(steps):
        clock.waits()
        batch = next(source)
        clock.has_batch()
        learner.step(batch.images, batch.labels, number=number, lr=_LR)
    return clock.take()
