"""Recipes -> one that makes several views of each picture, such as the two crops of SimCLR."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from imgdata import checks
from imgdata.errors import OptionError
from imgdata.recipes.functions import BatchApply
from imgdata.recipes.ops import CutMix, MixUp, MixUpOrCutMix
from imgdata.recipes.recipe import RECIPE_VERSION, Recipe

MAX_VIEWS: Final = 64
"""Views of a picture, at most."""
VIEW_KEYS: Final = 2**56
"""Keys from which the numbers of a view are drawn: those of view v begin at v times this, far beyond any position."""
_REFUSED = (MixUp, CutMix, MixUpOrCutMix, BatchApply)


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Views(Recipe):
    """Several views of each picture, a recipe for each: `batch.images` is a tuple of tensors, one for each view.

    What is random in view v is a function of seed, epoch, sample and v. The first view is what its recipe alone makes,
    number by number; as a recipe, this object is the first one.
    """

    more: tuple[Recipe, ...]
    """Recipes of the views behind the first one."""

    def __init__(self, *recipes: Recipe) -> None:
        if not 1 <= len(recipes) <= MAX_VIEWS:
            raise OptionError(f"there must be 1 to {MAX_VIEWS} views, got {len(recipes)}")
        for number, recipe in enumerate(recipes):
            if type(recipe) is not Recipe:
                raise OptionError(f"a view must be a Recipe, got {recipe!r}")
            for op in recipe.ops:
                if isinstance(op, _REFUSED):
                    raise OptionError(
                        f"{type(op).__name__} must not stand in a view, got it in view {number}: views are not mixed; "
                        "leave it out, and mix the views of a batch yourself"
                    )
        object.__setattr__(self, "ops", recipes[0].ops)
        object.__setattr__(self, "more", recipes[1:])

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of each view."""
        return (Recipe(*self.ops), *self.more)

    def __repr__(self) -> str:
        lines = "".join(f"{recipe!r},\n" for recipe in self.recipes)
        return "views(\n" + "".join(f"    {line}\n" for line in lines.splitlines()) + ")"

    def to_dict(self) -> dict[str, Any]:
        """Return the views as dicts, lists, numbers and strings, for JSON; see `Recipe.to_dict`."""
        return {"version": RECIPE_VERSION, "views": [recipe.to_dict()["ops"] for recipe in self.recipes]}


def views(*parts: "Recipe | int") -> Views:
    """Return a recipe of several views: `views(a, b)`, or `views(2, a)` for the same one twice, in any mixture.

    `views(first, second, 8, local)` has ten. Each view draws its own random numbers. Raises `OptionError`.
    """
    found: list[Recipe] = []
    times: int | None = None
    for part in parts:
        if isinstance(part, Recipe):
            found += [part] * (1 if times is None else times)
            times = None
        elif times is None and checks.is_integer(part) and 1 <= part <= MAX_VIEWS:
            times = int(part)
        else:
            raise OptionError(
                f"views must be recipes, or numbers from 1 to {MAX_VIEWS} in front of a recipe, got {part!r}"
            )
    if times is not None:
        raise OptionError(f"a number of views must stand in front of a recipe, got {times} at the end")
    return Views(*found)


def views_of(recipe: Recipe) -> tuple[Recipe, ...]:
    """Return the recipe of each view: one for a recipe that makes no others."""
    return recipe.recipes if isinstance(recipe, Views) else (recipe,)


def any_recipe(content: Mapping[str, Any]) -> Recipe:
    """Return the recipe, of one view or several, that `to_dict` wrote. Raises `OptionError`."""
    if not isinstance(content, Mapping) or "views" not in content:
        return Recipe.from_dict(content)
    if set(content) != {"version", "views"} or not isinstance(content["views"], list):
        raise OptionError(f"a recipe of views must have `version` and a list of `views`, got {', '.join(content)}")
    return Views(*(Recipe.from_dict({"version": content["version"], "ops": ops}) for ops in content["views"]))


def one_view(recipe: Recipe) -> Recipe:
    """Return the recipe if it makes one view. Raises `OptionError` for several, which the loader alone takes."""
    if isinstance(recipe, Views):
        raise OptionError(
            f"recipe must make one picture of each sample here, got {len(recipe.recipes)} views, which "
            "imgdata.Loader alone takes; use the recipe of one of them"
        )
    return recipe
