"""Step -> learning rate, as a share of the highest: a pure function, so that a resumed run needs no state for it."""

import math
from collections.abc import Sequence

from imgdata.train.options import Curve

_LAST_SHARE = 0.01
"""Where cosine curves end."""
_RISE = 0.3
"""Share of the steps in which `onecycle` rises: Smith and Topin, "Super-convergence", 2017 (arXiv 1708.07120)."""


def lr_share(step: int, *, steps: int, warmup: int, curve: Curve) -> float:
    """The share of the highest learning rate at `step` (from 0) of `steps`.

    It rises linearly for `warmup` steps (`onecycle`: for 3/10 of all, if that is more), and then falls to 1/100 along
    half a cosine (Loshchilov and Hutter, "SGDR", arXiv 1608.03983), or stays with `constant`.
    """
    if curve == "onecycle":
        warmup = max(warmup, round(_RISE * steps))
    warmup = min(warmup, steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if curve == "constant":
        return 1.0
    gone = min(1.0, (step - warmup) / max(1, steps - warmup))
    return _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * gone)) / 2


def phase_at(step: int, ends: Sequence[int]) -> tuple[int, int, int]:
    """Which phase `step` is in, its step there, and the phase's length; phases end before the steps `ends`."""
    start = 0
    for number, end in enumerate(ends):
        if step < end:
            return number, step - start, end - start
        start = end
    raise ValueError(f"step {step} is behind the last phase, which ends at {ends[-1]}")
