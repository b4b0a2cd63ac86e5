"""Names that a loader was asked to move with its pictures -> members and fields, checked."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from imgdata.augment.motion import mixes_moved
from imgdata.backends.options import LoaderOptions
from imgdata.dataset.joined import JoinedSplit
from imgdata.dataset.members import Member, member_columns
from imgdata.dataset.split import Split
from imgdata.errors import OptionError
from imgdata.recipes.ops import CutMix, MixUp, MixUpOrCutMix
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.several import views_of

BOXES, KEYPOINTS, BOX_LABELS = "boxes", "keypoints", "box_labels"
"""Fields of `json` members: a list of [left, top, right, bottom] in pixels; for each object a list of
[x, y, visibility]; a class index for each box."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """What moves with the pictures of a loader."""

    members: tuple[Member, ...] = ()
    boxes: bool = False
    keypoints: bool = False
    of_boxes: tuple[str, ...] = ()
    """Fields with a value for each box, or for each object with keypoints, which go where their box goes."""
    ignore_index: int = 255
    """What masks have outside of the picture."""

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields."""
        return (*((BOXES,) * self.boxes), *((KEYPOINTS,) * self.keypoints), *self.of_boxes)

    @property
    def kinds(self) -> dict[str, str]:
        """Name -> `mask`, `image`, `boxes`, `keypoints`, or `field`."""
        named = {member.name: str(member.kind) for member in self.members}
        return {**named, **{name: name if name in (BOXES, KEYPOINTS) else "field" for name in self.fields}}


def joint_of(split: Split, options: LoaderOptions) -> Joint | None:
    """Return what `options.joint` names; None where it names nothing. Raises `OptionError`, `ShardError`."""
    names = options.joint
    if not names:
        return None
    known = {member.name: member for member in split.members}
    fields = split.columns.types
    asked_fields = [name for name in names if name not in known]
    for name in asked_fields:
        if name not in fields:
            _refuse_some_without(name, split)
            _refuse_unknown(name, known, [name for name in (BOXES, KEYPOINTS, BOX_LABELS) if name in fields])
    for name in names:
        if name in known and not split.index.array(member_columns(name)[1]).any():
            raise OptionError(f"joint names {name!r}, but no sample of split {split.name!r} has one; leave it out here")
        if name in options.columns:
            raise OptionError(f"{name!r} must stand in one of joint and columns, got it in both")
    boxes, keypoints = BOXES in asked_fields, KEYPOINTS in asked_fields
    others = [name for name in asked_fields if name not in (BOXES, KEYPOINTS)]
    if boxes and BOX_LABELS in fields and BOX_LABELS not in (*others, *options.columns):
        others.append(BOX_LABELS)
    if others and not (boxes or keypoints):
        raise OptionError(
            f"joint must name {BOXES!r} as well, got {others[0]!r} alone, whose values go where boxes go; columns="
            f"[{others[0]!r}] has it as it is"
        )
    for recipe in views_of(options.recipe):
        _check_recipe(recipe)
    return Joint(
        members=tuple(known[name] for name in names if name in known),
        boxes=boxes,
        keypoints=keypoints,
        of_boxes=tuple(others),
        ignore_index=options.ignore_index,
    )


def _refuse_some_without(name: str, split: Split) -> None:
    """Raise `OptionError` where some of the datasets that are read together have the further image, others not."""
    parts = split.splits if isinstance(split, JoinedSplit) else ()
    without = [str(one.folder) for one in parts if name not in {member.name for member in one.members}]
    if without and len(without) < len(parts):
        raise OptionError(
            f"joint names {name!r}, which each of the datasets must have, and {', '.join(without)} has none; leave out "
            "the name or that dataset"
        )


def _refuse_unknown(name: str, members: Iterable[str], fields: Iterable[str]) -> None:
    found = [*members, *fields]
    if not found:
        raise OptionError(
            f"joint must name what moves with the pictures, got {name!r}, and this dataset has no masks, boxes or "
            "keypoints; shard it with them"
        )
    near = difflib.get_close_matches(name, found, n=1)
    perhaps = f" (did you mean {near[0]!r}?)" if near else ""
    raise OptionError(f"joint must be among {', '.join(found)}, got {name!r}{perhaps}")


def _check_recipe(recipe: Recipe) -> None:
    """Check that what moves with a picture can follow it."""
    for op in recipe.ops:
        if isinstance(op, MixUp | CutMix | MixUpOrCutMix):
            raise OptionError(
                f"{type(op).__name__} mixes pictures, which no mask or box can follow; leave it out, or joint"
            )
    if mixes_moved(recipe):
        raise OptionError(
            "AugMix sums pictures that were moved in different ways, which no mask or box can follow; leave it out, or "
            "joint"
        )
