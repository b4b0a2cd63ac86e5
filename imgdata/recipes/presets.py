"""A size -> the usual recipe of a kind of training, with its source."""

from pathlib import Path

from imgdata.errors import OptionError
from imgdata.recipes import presets
from imgdata.recipes.ops import (
    PLACES,
    CenterCrop,
    ColorJitter,
    Cutout,
    FixedCrop,
    Grayscale,
    HorizontalFlip,
    Normalize,
    PadRandomCrop,
    RandomResizedCrop,
    Resize,
    Rotate,
)
from imgdata.recipes.recipe import PixelOp, Recipe
from imgdata.recipes.several import Views, any_recipe, one_view, views
from imgdata.recipes.sizes import Ramp, Schedule
from imgdata.recipes.tones import GaussianBlur, Solarize
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


def simclr(size: int = 224) -> Views:
    """Return two views alike: crop, flip, strong colours, gray, blur, ImageNet's mean and deviation.

    Chen et al., "A simple framework for contrastive learning", 2020 (arXiv 2002.05709), appendix A, with strength 1.
    The paper's pictures are 0 to 1, without mean and deviation; a blur's kernel is a tenth of the side.
    """
    colours = ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.8)
    return views(2, _distorted(size, (0.08, 1.0), colours, GaussianBlur(_kernel(size), p=0.5)))


def byol(size: int = 224) -> Views:
    """Return two views: crop, flip, colours, gray; one is always blurred, the other seldom, and at times inverted.

    Grill et al., "Bootstrap your own latent", 2020 (arXiv 2006.07733), table 6: crops are bicubic.
    """
    first, second = _blurs(size)
    crops = ((0.08, 1.0), _SOFT_COLOURS)
    return views(
        _distorted(size, *crops, first, bicubic=True), _distorted(size, *crops, second, _SOLARIZE, bicubic=True)
    )


def moco_v3(size: int = 224) -> Views:
    """Return two views as `byol`'s, with bilinear crops.

    Chen et al., "An empirical study of training self-supervised vision transformers", 2021 (arXiv 2104.02057), and its
    code: `facebookresearch/moco-v3`, whose blur has no limit of its kernel.
    """
    first, second = _blurs(size)
    crops = ((0.08, 1.0), _SOFT_COLOURS)
    return views(_distorted(size, *crops, first), _distorted(size, *crops, second, _SOLARIZE))


def dino(size: int = 224, local_size: int | None = None, num_local: int = 8) -> Views:
    """Return two large crops and `num_local` small ones, of side `local_size`: 3/7 of `size` by default, so 96.

    Caron et al., "Emerging properties in self-supervised vision transformers", 2021 (arXiv 2104.14294), and its code,
    `facebookresearch/dino`: two crops of 0.4 to 1 of the area, the others of 0.05 to 0.4, all bicubic.
    """
    small = round(size * 3 / 7) if local_size is None else local_size
    first, second = _blurs(size)
    return views(
        _distorted(size, (0.4, 1.0), _SOFT_COLOURS, first, bicubic=True),
        _distorted(size, (0.4, 1.0), _SOFT_COLOURS, second, _SOLARIZE, bicubic=True),
        *([num_local] if num_local else []),
        *(
            [_distorted(small, (0.05, 0.4), _SOFT_COLOURS, GaussianBlur(_kernel(small), p=0.5), bicubic=True)]
            if num_local
            else []
        ),
    )


def mae(size: int = 224) -> Recipe:
    """Return the one view of masked autoencoders: a bicubic crop of 0.2 to 1 of the area, flip, mean and deviation.

    He et al., "Masked autoencoders are scalable vision learners", 2021 (arXiv 2111.06377), appendix A.1.
    """
    crop = RandomResizedCrop(size=size, scale=(0.2, 1.0), interpolation="bicubic")
    return Recipe(crop, HorizontalFlip(), Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD))


def five_crop(recipe: Recipe) -> Views:
    """Return a recipe of evaluation with five crops instead of the middle one: corners, then the middle.

    torchvision's `FiveCrop`. `recipe` must have `CenterCrop`, as `imagenet_eval` has. Raises `OptionError`.
    """
    return views(*(_crop_at(recipe, FixedCrop(size=_middle(recipe).size, place=place)) for place in PLACES))


def ten_crop(recipe: Recipe) -> Views:
    """Return a recipe of evaluation with ten crops: those of `five_crop`, then the same five of the mirror image.

    torchvision's `TenCrop`; Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural
    networks", 2012. Raises `OptionError`.
    """
    five, size = five_crop(recipe), _middle(recipe).size
    if recipe.find(HorizontalFlip) is not None:
        raise OptionError("ten crops need a recipe without HorizontalFlip, which half of them have; leave it out")
    crops = [FixedCrop(size=size, place=place, mirrored=True) for place in PLACES]
    return views(*five.recipes, *(_crop_at(recipe, crop, HorizontalFlip(p=1.0)) for crop in crops))


def with_crops(recipe: Recipe, crops: int) -> Recipe:
    """Return the recipe for 1, 5 or 10 crops of each picture. Raises `OptionError`."""
    if crops not in CROPS:
        raise OptionError(f"crops must be one of {', '.join(map(str, CROPS))}, got {crops!r}")
    if crops == 1:
        return recipe
    return five_crop(recipe) if crops == 5 else ten_crop(recipe)


def _middle(recipe: Recipe) -> CenterCrop:
    crop = recipe.find(CenterCrop)
    if crop is None or isinstance(recipe, Views):
        raise OptionError(
            f"several crops need a recipe of one view with CenterCrop, whose place they take, got {recipe!r}"
        )
    return crop


def _crop_at(recipe: Recipe, *crop: FixedCrop | HorizontalFlip) -> Recipe:
    ops = [(op,) if not isinstance(op, CenterCrop) else crop for op in recipe.ops]
    return Recipe(*(one for some in ops for one in some))


_SOFT_COLOURS = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
_SOLARIZE = Solarize(128, p=0.2)


def _kernel(size: int) -> int:
    """Return the side of a blur's kernel: 23 for pictures of 224 pixels, and never beyond a small picture."""
    return min(2 * (size // 20) + 1, 2 * size - 1)


def _blurs(size: int) -> tuple[GaussianBlur, GaussianBlur]:
    return GaussianBlur(_kernel(size), p=1.0), GaussianBlur(_kernel(size), p=0.1)


def _distorted(
    size: int, area: tuple[float, float], colours: ColorJitter, *further: PixelOp, bicubic: bool = False
) -> Recipe:
    crop = RandomResizedCrop(size=size, scale=area, interpolation="bicubic" if bicubic else "bilinear")
    normalize = Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return Recipe(crop, HorizontalFlip(), colours, Grayscale(p=0.2), *further, normalize)


PRESETS = ("imagenet_train", "imagenet_eval", "cifar_train", "cifar_eval", "classifier_train", "classifier_eval", "mae")
"""Ready recipes by name."""
VIEW_PRESETS = ("simclr", "byol", "moco_v3", "dino")
"""Ready recipes of several views by name; the loader alone takes them."""
CROPS = (1, 5, 10)
"""Numbers of crops of each picture in an evaluation."""
OF_ONE_SIZE = ("cifar_train", "cifar_eval")
"""Those whose pictures are 32 x 32."""
SHORT_NAMES = {"imagenet": "imagenet_train", "cifar": "cifar_train", "classifier": "classifier_train"}
"""Names that `imgdata train` has for recipes -> those of the functions; `plain` is a name of its own."""


def preset_name(name: str) -> str:
    """Return the name of the function for a recipe's name, long or short: `cifar` is `cifar_train`."""
    return SHORT_NAMES.get(name, name)


def named_recipe(name: str, size: int | None = None) -> Recipe:
    """Return one of `PRESETS`, with another side of the output in pixels, or the recipe in a .json file.

    Raises `OptionError`, also for one that makes several views.
    """
    return one_view(named(name, size))


def named(name: str, size: int | None = None) -> Recipe:
    """Return the ready recipe of that name, of one view or several, or the recipe in a .json file: `named("dino")`.

    `size` is another side of the output, in pixels. Raises `OptionError`.
    """
    if name.endswith(".json"):
        if size is not None:
            raise OptionError(f"size must be left out with a recipe that has its own, got {size}")
        return _read(Path(name))
    name = preset_name(name)
    if name == "plain":
        side = 224 if size is None else size
        return imagenet_eval(side, resize=side)
    if name not in (*PRESETS, *VIEW_PRESETS):
        names = ", ".join((*SHORT_NAMES, "plain", *PRESETS, *VIEW_PRESETS))
        raise OptionError(f"recipe must be one of {names}, or a .json file, got {name!r}")
    if name in OF_ONE_SIZE and size is not None:
        raise OptionError(f"{name} must have its own size, 32, got size {size}; leave it out")
    recipe: Recipe = getattr(presets, name)(*([] if size is None else [size]))
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of one view in a file, JSON as `Recipe.to_dict` gives it. Raises `OptionError`."""
    return one_view(_read(path))


def _read(path: Path) -> Recipe:
    try:
        content = read_json(path)
    except OSError as error:
        raise OptionError(f"{path}: the recipe can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OptionError(f"{path}: must be JSON as `Recipe.to_dict` gives it: {error}") from error
    return any_recipe(content)
