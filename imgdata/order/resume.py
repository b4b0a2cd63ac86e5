"""Order, batches consumed -> a small state; the state -> where to resume, with any number of ranks.

Progress counts samples of the epoch's one sequence, over all ranks. Batches would mean something else for every batch
size; samples make the rest of an epoch the same for all of them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from imgdata import checks
from imgdata.errors import OptionError
from imgdata.order.epoch_order import MAX_EPOCH, Order

STATE_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is: `samples` of `epoch` were handed out, counted over all ranks."""

    seed: int
    epoch: int
    samples: int
    fingerprint: str
    """Fingerprint of the data and the order; a state fits only where it is the same."""

    def to_state(self) -> dict[str, Any]:
        """Return the state as values for JSON or `torch.save`: `version`, and the fields."""
        return {"version": STATE_VERSION, **asdict(self)}


def fingerprint(index_id: str, order: Order) -> str:
    """Return a name of the sequence of samples that `order` makes of the data `index_id`, for any batches and seed.

    32 hex digits of SHA-256 over what decides it: the number of samples, the kind of shuffle, for windows their shards,
    and whether the order is a keyed bijection. Rank count, batch size and `drop_last` only cut the sequence, and may
    change at a resume.
    """
    windows = [order.window_shards, *order.shard_sizes] if order.shuffle == "window" else []
    content = json.dumps([index_id, order.num_samples, order.shuffle, windows, *["keyed"] * order.is_keyed])
    return order.fingerprint(hashlib.sha256(content.encode()).hexdigest()[:32])


def advance(order: Order, progress: Progress, batches: int) -> Progress:
    """Return `progress` after `batches` more global batches, in O(1); an epoch's end is the start of the next."""
    if batches < 0:
        raise OptionError(f"batches must be 0 or more, got {batches}")
    left = order.batches_left(progress.samples)
    if batches < left:
        return replace(progress, samples=progress.samples + batches * order.global_batch)
    epochs, rest = divmod(batches - left, len(order))
    return replace(progress, epoch=progress.epoch + 1 + epochs, samples=rest * order.global_batch)


def resume(state: Mapping[str, Any], order: Order, fingerprint: str) -> Progress:
    """Return where a run with `order` resumes after `state`: the samples left of the epoch keep their order.

    Another batch size or number of ranks is fine. Where that leaves no full batch and `order.drop_last` holds, the run
    goes on with the next epoch. Raises `OptionError` for the state of other data, another order or seed.
    """
    progress = _read(state)
    if progress.fingerprint != fingerprint:
        raise OptionError(
            f"state: fingerprint must be {fingerprint}, got {progress.fingerprint}: it was saved with another dataset, "
            f"view or shuffle{order.resumes_with}; use those again, or start without the state"
        )
    if progress.seed != order.seed:
        raise OptionError(f"state: seed must be {order.seed}, got {progress.seed}; pass seed={progress.seed}")
    if progress.samples > order.most_samples:
        raise OptionError(f"state: samples must be 0 to {order.most_samples}, got {progress.samples}; it is damaged")
    if progress.samples % order.unit:
        raise OptionError(f"state: samples must be a multiple of {order.unit}, got {progress.samples}; it is damaged")
    return advance(order, progress, 0)


def _read(state: Mapping[str, Any]) -> Progress:
    if not isinstance(state, Mapping):
        raise OptionError(f"state must be a dict as `state_dict` gives it, got {state!r:.60}")
    version = state.get("version")
    if version != STATE_VERSION:
        raise OptionError(f"state: version must be {STATE_VERSION}, got {version!r}; another imgdata saved it")
    for name, limit in (("seed", 2**63), ("epoch", MAX_EPOCH), ("samples", 2**63)):
        value = state.get(name)
        if value is None or not checks.is_integer(value) or not 0 <= int(value) < limit:
            raise OptionError(f"state: {name} must be a whole number from 0, got {value!r}; it is damaged")
    if not isinstance(state.get("fingerprint"), str):
        raise OptionError(f"state: fingerprint must be text, got {state.get('fingerprint')!r}; it is damaged")
    seed, epoch, samples = (int(state[name]) for name in ("seed", "epoch", "samples"))
    return Progress(seed=seed, epoch=epoch, samples=samples, fingerprint=state["fingerprint"])
