"""A case, a time budget -> the best of several settings of the real loader, and the Python that makes it."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from imgdata.backends import registry
from imgdata.backends.options import BackendName, DType, or_default
from imgdata.backends.protocol import BackendKind
from imgdata.measure.doctor.inputs import Case

_TRIAL_SHARE = 1 / 16
"""Share of the budget for each trial."""
_LEAST_S, _MOST_S = 0.2, 5.0
_LEAST_GAIN = 1.03
"""Least ratio of rates by which another setting must be better to be chosen: less is noise."""
_FINALISTS, _REPEATS, _FINAL_SHARE = 3, 2, 1 / 3
"""Number of times that the best trials are repeated alternately, so that a short disturbance does not decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Settings of a loader that are tried; the batch size, the recipe and the order stay as they are."""

    backend: BackendName
    threads: int
    prefetch: int
    dtype: DType
    dali_options: dict[str, object] = field(default_factory=dict, hash=False)
    """One of `BackendKind.variants`."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a `Loader`; empty ones are left out."""
        return {name: value for name, value in asdict(self).items() if value != {}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One setting, as it was measured."""

    setting: Setting
    images_per_s: float
    """The highest of its runs: other programs only take from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """All trials."""

    trials: tuple[Trial, ...]
    """Trials in order of time; the first has the user's setting."""
    best: Trial
    code: str
    """A line of Python."""
    left_out: int
    """Candidates for which there was no time."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def search(
    start: Setting,
    values: dict[str, tuple[Any, ...]],
    measure: Callable[[Setting, float], float | None],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[Trial], Trial, int]:
    """Return (trials, the best, candidates left out); settings are changed one by one, the best value of each kept.

    `values` has the candidates of each setting, the most important first. `measure` is given a setting and the seconds
    that it may take, and returns images/s, or None where that setting is impossible.
    """
    begun, each = clock(), min(max(_TRIAL_SHARE * seconds, _LEAST_S), _MOST_S)
    first = measure(start, each)
    assert first is not None, "the loader's own setting is possible"
    best = Trial(setting=start, images_per_s=first)
    trials, left_out = [best], 0
    for name, candidates in values.items():
        for setting in [replace(best.setting, **{name: value}) for value in candidates]:
            if any(trial.setting == setting for trial in trials):
                continue
            if clock() - begun + each > (1 - _FINAL_SHARE) * seconds:
                left_out += 1
                continue
            rate = measure(setting, each)
            if rate is None:
                continue
            trials.append(Trial(setting=setting, images_per_s=rate))
            if rate > _LEAST_GAIN * best.images_per_s:
                best = trials[-1]
    trials = _repeated(trials, measure, each, time_left=lambda: seconds - (clock() - begun))
    fastest = max(trial.images_per_s for trial in trials)
    # The first of those that are about as fast: nearest to what there is now.
    return trials, next(trial for trial in trials if _LEAST_GAIN * trial.images_per_s >= fastest), left_out


def _repeated(
    trials: list[Trial],
    measure: Callable[[Setting, float], float | None],
    each: float,
    time_left: Callable[[], float],
) -> list[Trial]:
    """Repeat the best trials and the first one as far as time reaches, and return all trials."""
    rates = [trial.images_per_s for trial in trials]
    finalists = sorted(range(len(trials)), key=lambda number: -rates[number])[:_FINALISTS]
    # What the user has now is what the others are compared with.
    for number in [*dict.fromkeys((0, *finalists))] * _REPEATS:
        if time_left() >= each:
            rates[number] = max(rates[number], measure(trials[number].setting, each) or 0.0)
    return [replace(trial, images_per_s=rate) for trial, rate in zip(trials, rates, strict=True)]


def tune(case: Case, seconds: float, *, cores: float, decode_images_per_s: float) -> Tuned:
    """Run the real loader with other settings, about as long as `seconds`; the batch size stays.

    `decode_images_per_s` is what the CPU backend gives: it says whether there is time to decode the split once.
    """
    start = Setting(
        backend=case.kind.name,
        threads=case.options.threads,
        prefetch=case.options.prefetch,
        dtype=case.options.dtype,
        dali_options=dict(case.options.dali_options),
    )
    values = dict(_candidates(case, cores, seconds * decode_images_per_s))
    trials, best, left_out = search(start, values, lambda setting, each: _measure(case, setting, each), seconds)
    return Tuned(trials=tuple(trials), best=best, code=code(case, best.setting), left_out=left_out, seconds=seconds)


def code(case: Case, setting: Setting) -> str:
    """Return the line of Python that makes the loader."""
    arguments = {
        "split": case.opened.view.split,
        "batch_size": case.options.batch_size,
        "device": case.options.device,
        **setting.arguments(),
    }
    # JSON's numbers, texts and objects are Python's as well, with the quotes of this documentation.
    words = [f"{name}={json.dumps(value)}" for name, value in arguments.items()]
    return f"imgdata.Loader({json.dumps(case.dataset)}, recipe={case.recipe_code}, {', '.join(words)})"


def _candidates(case: Case, cores: float, decoded_in_time: float) -> Iterator[tuple[str, tuple[Any, ...]]]:
    def in_time(kind: BackendKind) -> bool:
        # It would be decoded within the budget, of which a part is enough for the trial.
        return kind.prefers(case.setup) and len(case.opened.split) < decoded_in_time / 2

    kinds = [
        kind
        for kind in reversed(registry.KINDS)
        if kind.refuses(case.setup) is None and (not kind.decodes_once or in_time(kind))
    ]
    yield "backend", tuple(kind.name for kind in kinds)
    most = max(1, int(cores))
    yield "threads", tuple(dict.fromkeys((most, max(1, most // 2), max(1, most - 1), most + 1, 2 * most)))
    yield "prefetch", (2, 4, 1)
    if case.options.dtype != "uint8":
        yield "dtype", ("uint8",)
    variants = [variant for kind in kinds for variant in kind.variants(case.options)]
    if variants:
        yield "dali_options", tuple(dict(variant.dali_options) for variant in variants)


def _measure(case: Case, setting: Setting, seconds: float) -> float | None:
    from imgdata.loader.loader import Loader
    from imgdata.measure.timing import loader_rate

    if setting.dali_options and not registry.kind_named(setting.backend).variants(case.options):
        return None
    # What the settings before decided for their dtype is open again.
    options = replace(case.options, **asdict(setting), channels_last=or_default(None))
    with Loader.from_options(case.opened.view, options, rank=0, world_size=1) as loader:
        return loader_rate(loader, seconds).images_per_s
