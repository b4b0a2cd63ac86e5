"""A recipe's operators on pixels -> the single steps that they are made of, and what is drawn for each.

Operators that others hold, and the kinds that came after the first seven (those with fields of their own in
`BatchParams`), become steps: which samples get them, and with which values. A choice among operators is then only
a matter of which samples get which step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgdata.augment import augmix, philox, policies
from imgdata.augment.crops import Floats, Ints
from imgdata.augment.philox import Stream
from imgdata.recipes.choices import AugMix, RandomApply, RandomChoice, ThreeAugment
from imgdata.recipes.functions import Apply
from imgdata.recipes.moves import Affine, Perspective
from imgdata.recipes.ops import AutoAugment, ColorJitter, Grayscale, RandAugment, Rotate, TrivialAugment
from imgdata.recipes.recipe import PixelOp, Recipe
from imgdata.recipes.tones import AutoContrast, Equalize, GaussianBlur, Invert, Posterize, Sharpness, Solarize

Bools = NDArray[np.bool_]
WITH_FIELDS = (Rotate, RandAugment, TrivialAugment, AutoAugment, ColorJitter, Grayscale)
"""Kinds whose draws have fields of their own in `BatchParams`, where no other operator holds them."""
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
ORDERS = np.array(list(permutations(range(4))))
ORDERS.flags.writeable = False
_HELD_BLOCKS = 4096
"""Blocks of a stream that belong to one operator; the next one of that kind has the next ones."""


class Step(NamedTuple):
    """One change of pixels."""

    op: Any
    """The operator; none that holds others."""
    column: int
    """Column of `BatchParams.done_NS`."""
    first: int
    """First of its columns of `BatchParams.value_NV`."""
    values: int
    """How many columns it has; see `_KINDS`."""


class _Kind(NamedTuple):
    """How an operator draws."""

    stream: Stream
    blocks: Callable[[Any], int]
    values: Callable[[Any], int]
    draw: Callable[[Any, Floats, int, int], tuple[Bools, Floats]]
    """Operator, draws `(B, N, 4)`, height, width of the output -> which samples, values `(N, V)`."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Node:
    """An operator of the tree that a recipe is."""

    op: Any
    stream: Stream
    block: int
    blocks: int
    steps: tuple[Step, ...] = ()
    """Of an operator that holds none: one."""
    held: tuple["_Node", ...] = field(default=())


class Layout(NamedTuple):
    """All steps of a recipe."""

    ops: tuple[PixelOp, ...]
    """`Recipe.pixel_ops`."""
    nodes: tuple[_Node | None, ...]
    """One for each of `ops`; None for those with fields of their own."""
    steps: tuple[tuple[Step, ...], ...]
    """For each of `ops` its steps, in the order in which they are made; none where it has fields."""
    num_steps: int
    num_values: int


@lru_cache(maxsize=256)
def layout(recipe: Recipe) -> Layout:
    """Return the steps of a recipe, and where in the arrays of `BatchParams` they are."""
    return _Builder().layout(recipe.pixel_ops)


def draw(recipe: Recipe, height: int, width: int, *, seed: int, epoch: int, position_N: Ints) -> tuple[Bools, Floats]:
    """Return which samples get each step, bool `(N, S)`, and the values of all steps, float64 `(N, V)`."""
    plan, count = layout(recipe), len(position_N)
    done_NS, value_NV = np.zeros((count, plan.num_steps), bool), np.zeros((count, plan.num_values))
    if not plan.num_steps:
        return done_NS, value_NV
    nodes = [node for top in plan.nodes if top is not None for node in _all(top)]
    wanted = [(node.stream, node.block + number) for node in nodes for number in range(node.blocks)]
    block_BN4 = philox.uniform_blocks(seed, epoch, position_N, wanted)
    begin, draws = 0, {}
    for node in nodes:
        draws[node] = block_BN4[begin : begin + node.blocks]
        begin += node.blocks
    for top in plan.nodes:
        if top is not None:
            _fill(top, np.ones(count, bool), draws, height, width, done_NS, value_NV)
    return done_NS, value_NV


def generator(value_2: Floats) -> np.random.Generator:
    """Return a generator whose key is two numbers in [0, 1), multiples of 2**-53."""
    low, high = (int(value * 2**53) for value in value_2.tolist())
    return np.random.Generator(np.random.Philox(key=high << 64 | low))


def _all(node: _Node) -> Iterator[_Node]:
    yield node
    for held in node.held:
        yield from _all(held)


def _fill(
    node: _Node, among_N: Bools, draws: dict[_Node, Floats], height: int, width: int, done_NS: Bools, value_NV: Floats
) -> None:
    op, draw_BN4 = node.op, draws[node]
    if isinstance(op, RandomApply):
        for held in node.held:
            _fill(held, among_N & (draw_BN4[0, :, 0] < op.p), draws, height, width, done_NS, value_NV)
    elif isinstance(op, RandomChoice):
        which_N = _which(op, draw_BN4[0, :, 0])
        for number, held in enumerate(node.held):
            _fill(held, among_N & (which_N == number), draws, height, width, done_NS, value_NV)
    elif isinstance(op, ThreeAugment):
        which_N = (draw_BN4[0, :, 0] * 3).astype(np.int64)
        for number, step in enumerate(node.steps):
            done_NS[:, step.column] = among_N & (which_N == number)
        low, high = op.sigma
        value_NV[:, node.steps[-1].first] = low + (high - low) * draw_BN4[0, :, 1]
    else:
        (step,) = node.steps
        done_N, values = _KINDS[type(op)].draw(op, draw_BN4, height, width)
        done_NS[:, step.column] = among_N & done_N
        value_NV[:, step.first : step.first + step.values] = values


def _which(op: RandomChoice, draw_N: Floats) -> Ints:
    weight_K = np.array(op.weights or (1.0,) * len(op.ops))
    bound_K = np.cumsum(weight_K)
    which_N: Ints = np.searchsorted(bound_K, draw_N * bound_K[-1], side="right")
    return which_N.clip(max=int(np.flatnonzero(weight_K)[-1]))


class _Builder:
    """Numbers steps, values and blocks in the order in which operators stand."""

    def __init__(self) -> None:
        self._steps, self._values = 0, 0
        self._seen: dict[Stream, int] = {}

    def layout(self, ops: tuple[PixelOp, ...]) -> Layout:
        """Return the steps of these operators."""
        nodes = tuple(None if isinstance(op, WITH_FIELDS) else self._node(op) for op in ops)
        steps = tuple(() if node is None else tuple(step for one in _all(node) for step in one.steps) for node in nodes)
        return Layout(ops, nodes, steps, self._steps, self._values)

    def _node(self, op: Any) -> _Node:
        if isinstance(op, RandomApply | RandomChoice):
            stream = Stream.RANDOM_APPLY if isinstance(op, RandomApply) else Stream.RANDOM_CHOICE
            block = self._block(stream)
            return _Node(op=op, stream=stream, block=block, blocks=1, held=tuple(map(self._node, op.ops)))
        if isinstance(op, ThreeAugment):
            steps = tuple(self._step(held) for held in op.held())
            return _Node(op=op, stream=Stream.THREE, block=self._block(Stream.THREE), blocks=1, steps=steps)
        kind = _KINDS[type(op)]
        block = self._block(kind.stream)
        return _Node(op=op, stream=kind.stream, block=block, blocks=kind.blocks(op), steps=(self._step(op),))

    def _step(self, op: Any) -> Step:
        values = _KINDS[type(op)].values(op)
        step = Step(op, self._steps, self._values, values)
        self._steps, self._values = self._steps + 1, self._values + values
        return step

    def _block(self, stream: Stream) -> int:
        number = self._seen[stream] = self._seen.get(stream, -1) + 1
        return number * _HELD_BLOCKS


# --- what each kind draws ------------------------------------------------------------------------------------------


def _plain(op: Any, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    return draw_BN4[0, :, 0] < op.p, np.zeros((draw_BN4.shape[1], 0))


def _between(limits: tuple[float, float], draw_N: Floats) -> Floats:
    return limits[0] + (limits[1] - limits[0]) * draw_N


def _rotate(op: Rotate, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    whether_N, angle_N, *_ = draw_BN4[0].T
    return whether_N < op.p, _between(op.limits, angle_N)[:, None]


def _affine(op: Affine, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    whether_N, angle_N, x_N, y_N = draw_BN4[0].T
    scale_N, shear_x_N, shear_y_N, _ = draw_BN4[1].T
    most_x, most_y = op.translate[0] * width, op.translate[1] * height
    values = [
        _between(op.angles, angle_N),
        np.rint(_between((-most_x, most_x), x_N)),
        np.rint(_between((-most_y, most_y), y_N)),
        _between(op.scale, scale_N),
        _between(op.shears[:2], shear_x_N),
        _between(op.shears[2:], shear_y_N),
    ]
    return whether_N < op.p, np.stack(values, axis=1)


def _perspective(op: Perspective, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    place_N42 = draw_BN4[:2].transpose(1, 0, 2).reshape(-1, 4, 2)
    reach_2 = np.array([int(op.distortion * (width // 2)) + 1, int(op.distortion * (height // 2)) + 1])
    moved_N42 = np.floor(place_N42 * reach_2)
    # Upper left, upper right, lower right, lower left: what lies at the far side moves back from there.
    from_42 = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    moved_N42 += np.where(from_42 > 0, from_42 - reach_2, 0)
    return draw_BN4[2, :, 0] < op.p, moved_N42.reshape(-1, 8)


def _policy(op: policies.Policy, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    op_NP, strength_NP = policies.choose(op, draw_BN4, height, width)
    return np.ones(len(op_NP), bool), np.concatenate([op_NP, strength_NP], axis=1)


def _jitter(op: ColorJitter, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    low_4, high_4 = np.array(op.limits).T
    order_N4 = ORDERS[(draw_BN4[1, :, 1] * len(ORDERS)).astype(np.int64)]
    return draw_BN4[1, :, 0] < op.p, np.concatenate([order_N4, low_4 + (high_4 - low_4) * draw_BN4[0]], axis=1)


def _blur(op: GaussianBlur, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    return draw_BN4[0, :, 0] < op.p, _between(op.sigma, draw_BN4[0, :, 1])[:, None]


def _apply(op: Apply, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    return np.ones(draw_BN4.shape[1], bool), draw_BN4[0, :, :2]


def _augmix(op: AugMix, draw_BN4: Floats, height: int, width: int) -> tuple[Bools, Floats]:
    return np.ones(draw_BN4.shape[1], bool), augmix.draw(op, draw_BN4, height, width)


def _fixed(stream: Stream, blocks: int, values: int, draw: Callable[..., tuple[Bools, Floats]] = _plain) -> _Kind:
    return _Kind(stream, lambda _: blocks, lambda _: values, draw)


_HELD_POLICY = _Kind(Stream.HELD_POLICY, policies.slots, lambda op: 2 * policies.slots(op), _policy)
_KINDS: dict[type, _Kind] = {
    Rotate: _fixed(Stream.ROTATE, 1, 1, _rotate),
    Affine: _fixed(Stream.AFFINE, 2, 6, _affine),
    Perspective: _fixed(Stream.PERSPECTIVE, 3, 8, _perspective),
    RandAugment: _HELD_POLICY,
    TrivialAugment: _HELD_POLICY,
    AutoAugment: _HELD_POLICY,
    ColorJitter: _fixed(Stream.HELD_JITTER, 2, 8, _jitter),
    Grayscale: _fixed(Stream.GRAYSCALE, 1, 0),
    GaussianBlur: _fixed(Stream.BLUR, 1, 1, _blur),
    Solarize: _fixed(Stream.SOLARIZE, 1, 0),
    Posterize: _fixed(Stream.POSTERIZE, 1, 0),
    Equalize: _fixed(Stream.EQUALIZE, 1, 0),
    AutoContrast: _fixed(Stream.AUTO_CONTRAST, 1, 0),
    Sharpness: _fixed(Stream.SHARPNESS, 1, 0),
    Invert: _fixed(Stream.INVERT, 1, 0),
    Apply: _fixed(Stream.APPLY, 1, 2, _apply),
    AugMix: _Kind(Stream.AUGMIX, augmix.num_blocks, augmix.num_values, _augmix),
}
"""Values: `Rotate` the angle in degrees; `Affine` and `Perspective` what `augment.moves` takes; a policy its
operations, then their strengths; `ColorJitter` the order, then factors and shift; `GaussianBlur` the deviation in
pixels; `Apply` what `generator` takes; `AugMix` what `augment.augmix.parts` takes. The others have none."""
