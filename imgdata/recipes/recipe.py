"""Operators -> `Recipe`, checked as a whole; `Recipe` <-> plain dicts for JSON."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from typing import Any, TypeVar

from imgdata.errors import OptionError
from imgdata.recipes import choices, functions, moves, tones
from imgdata.recipes import ops as _ops
from imgdata.recipes.choices import HOLDERS, PIXELS
from imgdata.recipes.sizes import Ramp, Schedule, Size, epochs_of, sides_at

RECIPE_VERSION = 1

STAGES: tuple[tuple[type, ...], ...] = (
    (_ops.Resize, moves.RandomResize),
    (_ops.RandomResizedCrop, _ops.CenterCrop, _ops.FixedCrop, _ops.PadRandomCrop, moves.ScaleJitter),
    (_ops.HorizontalFlip,),
    (_ops.VerticalFlip,),
    PIXELS,
    (_ops.Normalize,),
    (_ops.RandomErasing, _ops.Cutout),
    (_ops.MixUp, _ops.CutMix, _ops.MixUpOrCutMix),
    (functions.BatchApply,),
)
"""The order in which every backend works: at most one operator of each stage, but any of `PIXELS`, in any order."""

_POLICIES = (_ops.RandAugment, _ops.TrivialAugment, _ops.AutoAugment)
_BY_NAME = {kind.__name__: kind for stage in STAGES for kind in stage}
_STAGE = {kind: number for number, stage in enumerate(STAGES) for kind in stage}

PixelOp = (
    _ops.Rotate
    | moves.Affine
    | moves.Perspective
    | _ops.RandAugment
    | _ops.TrivialAugment
    | _ops.AutoAugment
    | _ops.ColorJitter
    | _ops.Grayscale
    | tones.GaussianBlur
    | tones.Solarize
    | tones.Posterize
    | tones.Equalize
    | tones.AutoContrast
    | tones.Sharpness
    | tones.Invert
    | functions.Apply
    | choices.RandomApply
    | choices.RandomChoice
    | choices.ThreeAugment
    | choices.AugMix
)
"""An operator on pixels."""
Op = (
    _ops.Resize
    | moves.RandomResize
    | _ops.RandomResizedCrop
    | _ops.CenterCrop
    | _ops.FixedCrop
    | _ops.PadRandomCrop
    | moves.ScaleJitter
    | _ops.HorizontalFlip
    | _ops.VerticalFlip
    | PixelOp
    | _ops.Normalize
    | _ops.RandomErasing
    | _ops.Cutout
    | _ops.MixUp
    | _ops.CutMix
    | _ops.MixUpOrCutMix
    | functions.BatchApply
)
Sized = _ops.RandomResizedCrop | _ops.CenterCrop | _ops.FixedCrop | _ops.PadRandomCrop | moves.ScaleJitter | _ops.Resize
"""An operator that may set the size of the output."""
_T = TypeVar("_T")


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Recipe:
    """What is done to every sample: `Recipe(RandomResizedCrop(size=224), HorizontalFlip())`.

    Checked when built; raises `OptionError`. Two recipes with the same operators are equal.
    """

    ops: tuple[Op, ...]

    def __init__(self, *ops: Op) -> None:
        object.__setattr__(self, "ops", ops)
        _check_stages(ops)
        self._check_size()
        self._check_blur()

    def __repr__(self) -> str:
        return "".join(["Recipe(\n", *(f"    {op!r},\n" for op in self.ops), ")"])

    def find(self, kind: type[_T]) -> _T | None:
        """Return the operator of this type, or None."""
        return next((op for op in self.ops if isinstance(op, kind)), None)

    @property
    def pixel_ops(self) -> tuple[PixelOp, ...]:
        """Operators on pixels, in their order: those between flips and `Normalize`."""
        return tuple(op for op in self.ops if isinstance(op, PixelOp))

    @property
    def functions(self) -> tuple[functions.Apply | functions.BatchApply, ...]:
        """The operators that are functions of the user's, also those that others hold."""
        return tuple(_functions(self.ops))

    @property
    def resampling(self) -> _ops.Resampling | None:
        """How pictures are resized; None where they are not."""
        resizing = (
            self.find(_ops.RandomResizedCrop)
            or self.find(_ops.Resize)
            or self.find(moves.RandomResize)
            or self.find(moves.ScaleJitter)
        )
        return None if resizing is None else resizing.interpolation

    @property
    def mirrors_margins(self) -> bool:
        """Whether margins show the picture mirrored; otherwise they are black."""
        pad = self.find(_ops.PadRandomCrop)
        return pad is not None and pad.mode == "reflect"

    def output_size(self, epoch: int) -> tuple[int, int]:
        """Return (height, width) of all pictures of `epoch`, in pixels."""
        return sides_at(self._sized().size, epoch)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as dicts, lists, numbers and strings, for JSON.

        Raises `OptionError` where a function has no name under which another process would find it.
        """
        return {"version": RECIPE_VERSION, "ops": [_op_dict(op) for op in self.ops]}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Recipe":
        """Return the recipe that `to_dict` wrote; missing fields have their defaults. Raises `OptionError`."""
        if isinstance(content, Mapping) and "views" in content:
            raise OptionError(
                "a recipe of one view must have `ops`, got one of several `views`, which imgdata.Loader alone takes"
            )
        if not isinstance(content, Mapping) or set(content) != {"version", "ops"}:
            raise OptionError(f"a recipe must have `version` and `ops` and nothing else, got {_keys(content)}")
        if content["version"] != RECIPE_VERSION:
            raise OptionError(
                f"the recipe's version must be {RECIPE_VERSION}, got {content['version']!r}; it was written by "
                "another imgdata: upgrade imgdata"
            )
        if not isinstance(content["ops"], list):
            raise OptionError(f"the recipe's ops must be a list, got {content['ops']!r}")
        return Recipe(*map(_op_from_dict, content["ops"]))

    def _sized(self) -> Sized:
        for op in reversed(self.ops[:2]):
            if isinstance(op, Sized):
                return op
        if self.find(moves.RandomResize) is not None:
            raise OptionError("RandomResize makes pictures of random size; put CenterCrop or PadRandomCrop behind it")
        raise OptionError(
            "a recipe must begin with a crop or Resize, which sets the size of the output; put RandomResizedCrop, or "
            "Resize and CenterCrop, first"
        )

    def _check_size(self) -> None:
        sized, resize = self._sized(), self.find(_ops.Resize) or self.find(moves.RandomResize)
        if resize is None:
            return
        if isinstance(sized, _ops.RandomResizedCrop | moves.ScaleJitter):
            raise OptionError(f"{type(sized).__name__} resizes as well; leave {type(resize).__name__} out")
        if isinstance(sized, _ops.Resize):
            if not isinstance(sized.size, tuple):
                raise OptionError(
                    f"Resize(size={sized.size!r}) sets the shorter side alone, so pictures differ in size; put "
                    "CenterCrop behind it, or give (height, width)"
                )
            return
        least = resize.min_size if isinstance(resize, moves.RandomResize) else resize.size
        margin = 2 * sized.padding if isinstance(sized, _ops.PadRandomCrop) else 0
        for epoch in sorted({*epochs_of(sized.size), *epochs_of(least)}):
            crop, have = sides_at(sized.size, epoch), sides_at(least, epoch)
            if any(side > at_least + margin for side, at_least in zip(crop, have, strict=True)):
                raise OptionError(
                    f"{type(sized).__name__}.size must be at most {_sides(have, margin)}, which "
                    f"{type(resize).__name__}{' and padding leave' if margin else ' leaves'}, got {_sides(crop)} at "
                    f"epoch {epoch}"
                )

    def _check_blur(self) -> None:
        """Check that the kernels of blurs reach less far than the mirrored picture."""
        reach = max((_reach(op) for op in self.pixel_ops), default=0)
        if not reach:
            return
        for epoch in sorted(epochs_of(self._sized().size)):
            side = min(self.output_size(epoch))
            if reach >= side:
                raise OptionError(
                    f"GaussianBlur.kernel_size must be at most {2 * side - 1} where a side of the output has {side} "
                    f"pixels, got {2 * reach + 1} at epoch {epoch}"
                )


def _sides(size: tuple[int, int], margin: int = 0) -> str:
    """Return a size for people: height x width."""
    return f"{size[0] + margin}x{size[1] + margin}"


def _functions(ops: Iterable[Any]) -> Iterator[functions.Apply | functions.BatchApply]:
    for op in ops:
        if isinstance(op, functions.Apply | functions.BatchApply):
            yield op
        elif isinstance(op, HOLDERS):
            yield from _functions(op.ops)


def _reach(op: Any) -> int:
    """Return how many pixels to each side the kernel of a blur reaches; 0 for other operators."""
    if isinstance(op, HOLDERS):
        return max(map(_reach, op.ops))
    if isinstance(op, tones.GaussianBlur | choices.ThreeAugment):
        return int(op.kernel_size) // 2
    return 0


def _check_stages(ops: tuple[Op, ...]) -> None:
    for op in ops:
        if type(op) not in _STAGE:
            raise OptionError(f"a recipe is made of {', '.join(_BY_NAME)}, got {op!r}")
    kinds = [type(op) for op in ops if not isinstance(op, (*HOLDERS, functions.Apply))]
    policies = [kind.__name__ for kind in kinds if kind in _POLICIES]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise OptionError(f"{kind.__name__} must stand once in a recipe, got it twice")
    if len(policies) > 1:
        raise OptionError(f"a recipe must have only one of {policies[0]} and {policies[1]}, got both")
    for before, after in pairwise(ops):
        first, second = type(before).__name__, type(after).__name__
        if _STAGE[type(before)] == _STAGE[type(after)] and not isinstance(before, PIXELS):
            raise OptionError(f"a recipe must have only one of {first} and {second}, got both")
        if _STAGE[type(before)] > _STAGE[type(after)]:
            raise OptionError(
                f"{second} must stand before {first}, got it behind; the order is "
                + ", ".join("/".join(kind.__name__ for kind in stage) for stage in STAGES)
            )


def _op_dict(op: Op) -> dict[str, Any]:
    if isinstance(op, functions.Apply | functions.BatchApply):
        name = type(op).__name__
        return {"op": name, "function": functions.json_name(name, op.function)}
    return {"op": type(op).__name__, **{field.name: _plain(getattr(op, field.name)) for field in fields(op)}}


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return {"schedule": _plain(value.steps)}
    if isinstance(value, Ramp):
        return {"ramp": {field.name: getattr(value, field.name) for field in fields(value)}}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if type(value) in _STAGE:
        return _op_dict(value)
    # A number of NumPy's.
    return value.item() if hasattr(value, "item") else value


def _op_from_dict(content: Any) -> Any:
    if not isinstance(content, Mapping) or content.get("op") not in _BY_NAME:
        found = content.get("op") if isinstance(content, Mapping) else content
        raise OptionError(f"an operator must be one of {', '.join(_BY_NAME)}, got {found!r}")
    values = {name: _value(value) for name, value in content.items() if name != "op"}
    return _build(_BY_NAME[content["op"]], values)


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    known = {field.name: field.default is MISSING for field in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise OptionError(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(known)}")
    missing = [name for name, required in known.items() if required and name not in values]
    if missing:
        raise OptionError(f"{kind.__name__} must have {missing[0]!r}, got {', '.join(values) or 'nothing'}")
    return kind(**values)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_value(one) for one in value)
    if isinstance(value, Mapping) and "op" in value:
        return _op_from_dict(value)
    if isinstance(value, Mapping) and set(value) == {"schedule"}:
        return Schedule(_value(value["schedule"]))
    if isinstance(value, Mapping) and set(value) == {"ramp"} and isinstance(value["ramp"], Mapping):
        return _build(Ramp, value["ramp"])
    return value


def _keys(content: object) -> str:
    return ", ".join(map(str, content)) if isinstance(content, Mapping) else repr(content)


__all__ = ["RECIPE_VERSION", "STAGES", "Op", "PixelOp", "Recipe", "Size"]
