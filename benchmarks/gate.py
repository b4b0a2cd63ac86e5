"""The compiled decoder and the order, beside plain libraries -> whether they do more work than they did: `make gate`.

Each case is a ratio: what our code costs, over what a library costs for the same input in the same process. The
decoder is compared with libjpeg-turbo, which decodes the same crops and nothing else; order and parameters with
NumPy's argsort of as many numbers. The cost is in instructions where the kernel counts them, else the least processor
time of many short repeats; `baseline.json` has the ratios of either.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.counters import Counter, Unit
from benchmarks.crops import Crops, bare_library
from benchmarks.report import machine
from imgdata import native, recipes
from imgdata.augment.params import params
from imgdata.order.epoch_order import Order

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE: dict[Unit, float] = {"instructions": 0.08, "cpu_time": 0.17}
"""Share by which a ratio may be above the baseline. Another compiler or libjpeg-turbo moves instructions by a few
hundredths; processor time moves with what else the machine does."""
_PICTURES = 8
_SAMPLES = 50_000
"""Few: what takes some milliseconds is often done before the machine turns to something else."""
_REPEATS: dict[Unit, int] = {"instructions": 3, "cpu_time": 150}
_TRIES: dict[Unit, int] = {"instructions": 1, "cpu_time": 3}
"""Others may have the caches for a while; what got slower stays so."""
_BUDGET_S = 4.0
"""Seconds for the repeats of a case, after the third."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something of ours, and what it is compared with."""

    name: str
    ours: Callable[[], object]
    reference: Callable[[], object]
    timed: bool = True
    """Whether processor time says something: both have to suffer alike when others use the caches."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A case's ratio beside its baseline."""

    name: str
    ratio: float
    baseline: float
    limit: float

    @property
    def grew(self) -> bool:
        return self.ratio > self.limit


@click.command()
@click.option("--record", is_flag=True, help="Make this the baseline, for both ways of counting.")
@click.option("--unit", type=click.Choice(list(TOLERANCE)), help="By default instructions, where they are counted.")
def main(record: bool, unit: Unit | None) -> None:
    """Compare with the baseline; exit code 1 when something costs more."""
    if record:
        ratios = {name: ratios_by(name) for name in TOLERANCE}
        BASELINE.write_text(json.dumps({**machine(), "simd": native.SIMD, "ratios": ratios}, indent=2) + "\n")
        click.echo(json.dumps(ratios, indent=2))
        return
    recorded = json.loads(BASELINE.read_text())
    baseline = recorded["ratios"]
    if native.AVAILABLE and recorded["simd"] != list(native.SIMD):
        click.echo(f"gate: not compared: {BASELINE.name} is of {recorded['simd'][-1]}, and this is {native.SIMD[-1]}")
        return
    with Counter(unit) as counter, cases() as (found, left_out):
        verdicts = compare(ratios_of(found, counter), baseline[counter.unit], TOLERANCE[counter.unit])
        for _ in range(_TRIES[counter.unit] - 1):
            if any(one.grew for one in verdicts):
                verdicts = compare(ratios_of(found, counter), baseline[counter.unit], TOLERANCE[counter.unit])
        for name, reason in left_out.items():
            click.echo(f"gate: {name}: not measured: {reason}")
        for one in verdicts:
            word = "MORE THAN" if one.grew else "within"
            click.echo(f"gate: {one.name}: {one.ratio:.3f}, {word} {one.limit:.3f} (baseline {one.baseline:.3f})")
    if any(one.grew for one in verdicts):
        raise SystemExit(
            f"gate: ratios of {counter.unit.replace('_', ' ')} must be within {TOLERANCE[counter.unit]:.0%} of "
            f"{BASELINE.name}; find what got slower, or if it has to be, run `python -m benchmarks.gate --record`"
        )


def compare(ratios: Mapping[str, float], baseline: Mapping[str, float], tolerance: float) -> list[Verdict]:
    """Each ratio beside its baseline. Raises `KeyError` for a case that has none."""
    return [
        Verdict(name=name, ratio=ratio, baseline=baseline[name], limit=baseline[name] * (1 + tolerance))
        for name, ratio in ratios.items()
    ]


def ratios_by(unit: Unit) -> dict[str, float]:
    """Return the ratio of each case that can run here. Raises `OSError` where the kernel counts no instructions."""
    with Counter(unit) as counter, cases() as (found, _):
        return {name: round(ratio, 4) for name, ratio in ratios_of(found, counter).items()}


def ratios_of(found: list[Case], counter: Counter) -> dict[str, float]:
    """Return the least cost of ours over the least cost of the reference; the two run alternately."""
    ratios = {}
    for case in found:
        if counter.unit == "cpu_time" and not case.timed:
            continue
        # Caches, lazy imports and the frequency of the processor settle.
        case.ours(), case.reference()
        begun = time.perf_counter()
        costs: list[tuple[float, float]] = []
        while len(costs) < _REPEATS[counter.unit] and (len(costs) < 3 or time.perf_counter() - begun < _BUDGET_S):
            costs.append((counter.cost(case.ours), counter.cost(case.reference)))
        ours, reference = (min(column) for column in zip(*costs, strict=True))
        ratios[case.name] = ours / reference
    return ratios


@contextmanager
def cases() -> Iterator[tuple[list[Case], dict[str, str]]]:
    """Yield what can be compared here, and what can't, with the reason.

    Open the counter first: it does not count threads that were started before.
    """
    with ExitStack() as stack:
        found, left_out = _order_cases(), {}
        if not native.AVAILABLE:
            left_out["crops by the extension"] = "the extension was not built (gcc and libjpeg-turbo's headers)"
        else:
            try:
                found += stack.enter_context(_crop_cases())
            except ImportError as error:
                left_out["crops by the extension"] = str(error)
        yield found, left_out


def _order_cases() -> list[Case]:
    """Return the cases of order: an epoch of each shuffle, and the parameters of a batch."""
    number_N = np.random.Philox(key=np.array([1, 2], np.uint64)).random_raw(_SAMPLES)
    shards = (_SAMPLES // 100,) * 100

    def epoch(**settings: Any) -> Callable[[], object]:
        # A new one each time: epochs are kept.
        return lambda: Order(num_samples=_SAMPLES, global_batch=256, seed=3, **settings).epoch_positions(1)

    def sort() -> object:
        return np.argsort(number_N, kind="stable")

    position_N = np.arange(2560)
    side_N = np.full(2560, 400)
    recipe = recipes.imagenet_train(224)

    def batches() -> object:
        return params(recipe, side_N, side_N, seed=3, epoch=1, position_N=position_N)

    return [
        Case(name="order, global / argsort", ours=epoch(), reference=sort),
        Case(name="order, window / argsort", ours=epoch(shuffle="window", shard_sizes=shards), reference=sort),
        Case(name="parameters of 2,560 samples / argsort", ours=batches, reference=sort, timed=False),
    ]


@contextmanager
def _crop_cases() -> Iterator[list[Case]]:
    """Random crops of 224 by one thread of the extension, and the same by libjpeg-turbo alone."""
    with bare_library() as library, Crops(_PICTURES) as crops, Crops(_PICTURES, crop_ready=True) as ready:
        pool = native.Pool(1)
        try:
            yield [
                *(
                    Case(
                        name=f"crops, {dtype} / libjpeg-turbo",
                        ours=crops.ours(pool, dtype),
                        reference=crops.bare(library, "crop"),
                    )
                    for dtype in ("uint8", "float32")
                ),
                Case(
                    name="crops, uint8, crop-ready / libjpeg-turbo on plain",
                    ours=ready.ours(pool, "uint8"),
                    reference=crops.bare(library, "crop"),
                ),
            ]
        finally:
            pool.close()


if __name__ == "__main__":
    main()
