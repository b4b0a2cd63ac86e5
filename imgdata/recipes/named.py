"""The name of a ready recipe, or a JSON file -> the recipe."""

import json
from pathlib import Path

from imgdata.errors import OptionError
from imgdata.recipes import presets
from imgdata.recipes.recipe import Recipe

PRESETS = ("imagenet_train", "imagenet_eval", "cifar_train", "cifar_eval", "classifier_train", "classifier_eval")
"""Ready recipes by name."""
OF_ONE_SIZE = ("cifar_train", "cifar_eval")
"""Those whose pictures are 32 x 32."""


def named_recipe(name: str, size: int | None = None) -> Recipe:
    """One of `PRESETS`, with another side of the output in pixels, or the recipe in a .json file.

    Raises `OptionError`.
    """
    if name.endswith(".json"):
        if size is not None:
            raise OptionError(f"size must be left out with a recipe that has its own, got {size}")
        return read_recipe(Path(name))
    if name not in PRESETS:
        raise OptionError(f"recipe must be one of {', '.join(PRESETS)}, or a .json file, got {name!r}")
    if name in OF_ONE_SIZE and size is not None:
        raise OptionError(f"{name} must have its own size, 32, got size {size}; leave it out")
    recipe: Recipe = getattr(presets, name)(*([] if size is None else [size]))
    return recipe


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file, JSON as `Recipe.to_dict` gives it. Raises `OptionError`."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise OptionError(f"{path}: the recipe can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OptionError(f"{path}: must be JSON as `Recipe.to_dict` gives it: {error}") from error
    return Recipe.from_dict(content)
