"""A size -> the usual recipe of a kind of training, with its source."""

from pathlib import Path

from imgdata.errors import OptionError
from imgdata.recipes import presets
from imgdata.recipes.ops import (
    CenterCrop,
    Cutout,
    HorizontalFlip,
    Normalize,
    PadRandomCrop,
    RandomResizedCrop,
    Resize,
    Rotate,
)
from imgdata.recipes.recipe import Recipe
from imgdata.recipes.sizes import Ramp, Schedule
from imgdata.storage.reading import read_json

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images, as in torchvision's models and most later ones."""
IMAGENET_STD = (0.229, 0.224, 0.225)
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
"""Mean of the pixels of CIFAR-10's 50,000 training images, as in KellerJordan/cifar10-airbench."""
CIFAR_STD = (0.2470, 0.2435, 0.2616)


def imagenet_train(size: int | Schedule | Ramp = 224) -> Recipe:
    """Return random resized crop, flip, ImageNet's mean and deviation.

    The augmentation of Goyal et al., "Accurate, large minibatch SGD", 2017 (arXiv 1706.02677), and of torchvision's
    reference training (`references/classification`).
    """
    return Recipe(RandomResizedCrop(size=size), HorizontalFlip(), Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD))


def imagenet_eval(size: int = 224, resize: int = 256) -> Recipe:
    """Resize the shorter side to `resize`; the middle `size` x `size`, ImageNet's mean and deviation.

    The single-crop test of Goyal et al. (arXiv 1706.02677) and of torchvision's reference training.
    """
    return Recipe(Resize(size=resize), CenterCrop(size=size), Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD))


def cifar_train(*, cutout: int = 0) -> Recipe:
    """Return margins of 4, a random 32 x 32 crop, flip, CIFAR-10's mean and deviation; `cutout` is a side, 0 none.

    He et al., "Deep residual learning", 2015 (arXiv 1512.03385), section 4.2, with mirrored instead of black margins
    as in KellerJordan/cifar10-airbench. Cutout: 16 for CIFAR-10, 8 for CIFAR-100 (arXiv 1708.04552).
    """
    crop = PadRandomCrop(size=32, padding=4, mode="reflect")
    end = (Cutout(size=cutout),) if cutout else ()
    return Recipe(crop, HorizontalFlip(), Normalize(mean=CIFAR_MEAN, std=CIFAR_STD), *end)


def cifar_eval() -> Recipe:
    """Return the 32 x 32 picture as it is, CIFAR-10's statistics: He et al. (arXiv 1512.03385), section 4.2."""
    return Recipe(CenterCrop(size=32), Normalize(mean=CIFAR_MEAN, std=CIFAR_STD))


def classifier_train(size: int = 64) -> Recipe:
    """Return a recipe for small pictures of any kind: flip, rotation by up to a tenth of a circle, values from 0 to 1.

    The augmentation of Keras' example "Image classification from scratch" (`RandomFlip("horizontal")`,
    `RandomRotation(0.1)`, `Rescaling(1 / 255)`), with black corners instead of mirrored ones. Pictures of another size
    are resized and cut to the middle square first.
    """
    return Recipe(
        Resize(size=size),
        CenterCrop(size=size),
        HorizontalFlip(),
        Rotate(degrees=36.0, interpolation="bilinear"),
        Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    )


def classifier_eval(size: int = 64) -> Recipe:
    """Return `classifier_train` without its random part: the same size, values from 0 to 1."""
    return Recipe(Resize(size=size), CenterCrop(size=size), Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


PRESETS = ("imagenet_train", "imagenet_eval", "cifar_train", "cifar_eval", "classifier_train", "classifier_eval")
"""Ready recipes by name."""
OF_ONE_SIZE = ("cifar_train", "cifar_eval")
"""Those whose pictures are 32 x 32."""
SHORT_NAMES = {"imagenet": "imagenet_train", "cifar": "cifar_train", "classifier": "classifier_train"}
"""Names that `imgdata train` has for recipes -> those of the functions; `plain` is a name of its own."""


def preset_name(name: str) -> str:
    """Return the name of the function for a recipe's name, long or short: `cifar` is `cifar_train`."""
    return SHORT_NAMES.get(name, name)


def named_recipe(name: str, size: int | None = None) -> Recipe:
    """Return one of `PRESETS`, with another side of the output in pixels, or the recipe in a .json file.

    Raises `OptionError`.
    """
    if name.endswith(".json"):
        if size is not None:
            raise OptionError(f"size must be left out with a recipe that has its own, got {size}")
        return read_recipe(Path(name))
    name = preset_name(name)
    if name == "plain":
        side = 224 if size is None else size
        return imagenet_eval(side, resize=side)
    if name not in PRESETS:
        names = ", ".join((*SHORT_NAMES, "plain", *PRESETS))
        raise OptionError(f"recipe must be one of {names}, or a .json file, got {name!r}")
    if name in OF_ONE_SIZE and size is not None:
        raise OptionError(f"{name} must have its own size, 32, got size {size}; leave it out")
    recipe: Recipe = getattr(presets, name)(*([] if size is None else [size]))
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a file, JSON as `Recipe.to_dict` gives it. Raises `OptionError`."""
    try:
        content = read_json(path)
    except OSError as error:
        raise OptionError(f"{path}: the recipe can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OptionError(f"{path}: must be JSON as `Recipe.to_dict` gives it: {error}") from error
    return Recipe.from_dict(content)
