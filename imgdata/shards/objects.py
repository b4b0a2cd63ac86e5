"""A dataset of Python objects -> its samples one by one, with encoded images; any iterable, or several by split.

An item is a mapping (`{"image": ..., "label": ...}`), a pair `(image, label)`, a `Sample`, or an image alone. An image
is encoded bytes, a PIL image, or a uint8 array `(H, W)` or `(H, W, C)`. So datasets of torchvision and Hugging Face,
lists and generators all do. Further images of a mapping, such as `mask` or `depth`, are kept as such.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from imgdata.checks import is_integer
from imgdata.dataset.members import is_member_name, kind_of
from imgdata.errors import ImageError, SourceError
from imgdata.images.masks import write_numbers
from imgdata.images.png import encode_png
from imgdata.sample import ClassName, Sample

_IMAGE = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "pixel_values")
_LABEL = ("label", "labels", "cls", "class", "target", "fine_label")
_KEY = ("key", "__key__")
_PNG_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))
_TO_RGB = frozenset(("CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa", "La", "PA"))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample as the user gave it."""

    image: Any
    label: Any = None
    split: str = "train"
    key: str | None = None
    fields: Mapping[str, Any] | None = None
    members: Mapping[str, Any] | None = None
    """Further images by name, such as a mask."""


def splits_of(dataset: Any) -> Iterator[tuple[str | None, Iterable[Any]]]:
    """Yield each split of `dataset` with its name: those of a mapping of datasets, else one without a name.

    Raises `SourceError` for what can't be iterated over.
    """
    if isinstance(dataset, Mapping):
        for name, part in dataset.items():
            yield str(name), _iterable(part, f"split {name!r}")
        return
    yield None, _iterable(dataset, "the dataset")


def items(part: Iterable[Any], split: str | None) -> Iterator[Item]:
    """Yield the items of one split. Raises `SourceError` for an item that holds no image, with its number."""
    for number, value in enumerate(part):
        yield _item(value, split, f"item {number}" + (f" of {split}" if split else ""))


def class_names(dataset: Any) -> Sequence[Any] | None:
    """Return the names of the classes that a dataset of torchvision, Hugging Face or imgdata knows; None for others."""
    first = next(iter(dataset.values()), None) if isinstance(dataset, Mapping) else None
    for one in (dataset, first, getattr(dataset, "dataset", None)):
        names = getattr(one, "classes", None)
        if isinstance(names, list | tuple) and names and all(isinstance(name, str | tuple) for name in names):
            return names
        features = getattr(one, "features", None)
        if isinstance(features, Mapping):
            for label in _LABEL:
                names = getattr(features.get(label), "names", None)
                if names:
                    return list(names)
    return None


def encoded(image: Any, at: str) -> bytes:
    """Return `image` as encoded bytes: those that it is, else PNG. Raises `SourceError` for anything else, at `at`."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Mapping) and isinstance(image.get("bytes"), bytes):
        # As Hugging Face's datasets hold images that they don't decode.
        return bytes(image["bytes"])
    if isinstance(image, Image.Image):
        return _png(image, at)
    if isinstance(image, np.ndarray):
        return _png(_picture(image, at), at)
    hint = "; of a tensor give `.permute(1, 2, 0).numpy()`" if hasattr(image, "permute") else ""
    raise SourceError(
        f"{at}: an image must be a PIL image, a uint8 array (H, W) or (H, W, C), or encoded bytes, got "
        f"{type(image).__name__}{hint}"
    )


def encoded_member(image: Any, name: str, at: str) -> bytes:
    """Return a further image as encoded bytes: those that it is, else PNG.

    A mask is an array of whole numbers `(H, W)`, or a PIL image of mode 1, L, P, I or I;16; depth is one, too. Raises
    `SourceError` for anything else, at `at`.
    """
    at = f"{at}: {name}"
    is_mask = kind_of(name) == "mask"
    if isinstance(image, np.ndarray) and (is_mask or image.dtype == np.uint16):
        return _numbers(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image, at)
    if isinstance(image, Image.Image) and image.mode in ("I", "I;16", "I;16B", "I;16L"):
        return _numbers(np.asarray(image), at)
    if isinstance(image, Image.Image) and is_mask and image.mode not in ("1", "L", "P"):
        raise SourceError(
            f"{at} must be a PIL image of mode 1, L, P, I or I;16, or an array of whole numbers, got mode {image.mode}"
        )
    if isinstance(image, np.ndarray) and image.dtype != np.uint8:
        raise SourceError(
            f"{at} must be an array of uint8 (H, W) or (H, W, C), or of uint16 (H, W), got {image.dtype} of shape "
            f"{image.shape}; scale floats, such as metres to millimetres"
        )
    return encoded(image, at)


def _numbers(array: np.ndarray[Any, Any], at: str) -> bytes:
    if array.ndim != 2 or array.dtype.kind not in "bui" or not array.size:
        raise SourceError(
            f"{at} must be an array of whole numbers of shape (H, W), got {array.dtype} of shape {array.shape}"
        )
    try:
        return write_numbers(array)
    except ImageError as error:
        raise SourceError(f"{at}: {error.detail}") from error


def fields_text(fields: Mapping[str, Any] | None, at: str) -> str:
    """Return the further columns as one JSON object; empty when there are none. Raises `SourceError`."""
    if not fields:
        return ""
    try:
        return json.dumps(dict(fields), ensure_ascii=True, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{at}: columns {', '.join(map(str, fields))} must be JSON values: {error}") from error


def class_list(classes: Sequence[Any]) -> tuple[ClassName, ...]:
    """Return names, or pairs of id and name, as classes. Raises `SourceError` when one is there twice."""
    found = tuple(ClassName(one, one) if isinstance(one, str) else ClassName(*map(str, one)) for one in classes)
    ids = [one.id for one in found]
    repeated = next((one for one in ids if ids.count(one) > 1), None)
    if repeated is not None:
        raise SourceError(f"classes: {repeated!r} is there twice; each class needs an id of its own")
    return found


def label_of(value: Any, at: str) -> int | str | None:
    """Return a label as a whole number or a class name; None for none. Raises `SourceError`."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, str):
        return value
    if is_integer(value) and value >= -1:
        return None if value == -1 else int(value)
    raise SourceError(f"{at}: a label must be a class index, a class name or None, got {value!r:.80}")


def _iterable(part: Any, what: str) -> Iterable[Any]:
    if hasattr(part, "cast_column") and isinstance(getattr(part, "features", None), Mapping):
        part = _undecoded(part)
    if hasattr(part, "__getitem__") and hasattr(part, "__len__") and not hasattr(part, "__iter__"):
        return (part[position] for position in range(len(part)))
    if isinstance(part, str | bytes) or not hasattr(part, "__iter__"):
        raise SourceError(f"{what}: must be a path, or an iterable of samples, got {type(part).__name__}")
    return part  # type: ignore[no-any-return]


def _undecoded(part: Any) -> Any:
    """Return a dataset of Hugging Face that yields the images' encoded bytes instead of decoded pictures."""
    for name, feature in part.features.items():
        if type(feature).__name__ == "Image" and getattr(feature, "decode", False):
            part = part.cast_column(name, type(feature)(decode=False))
    return part


def _item(value: Any, split: str | None, at: str) -> Item:
    if isinstance(value, Sample):
        return Item(
            image=value.image,
            label=value.label,
            split=split or "train",
            key=value.key,
            fields=value.fields or None,
            members=value.members or None,
        )
    if isinstance(value, Mapping) and not isinstance(value.get("bytes"), bytes):
        image, key = (next((name for name in names if name in value), None) for names in (_IMAGE, _KEY))
        shape = _shape_of(value[image]) if image is not None else None
        images = {name: one for name, one in value.items() if name != image and _is_further_image(name, one, shape)}
        label = next((name for name in _LABEL if name in value and name not in images), None)
        # Datasets for segmentation call a mask the label.
        members = {"mask" if name in _LABEL else name: one for name, one in images.items()}
        taken = {image, label, key, "json", *images, *(() if split else ("split",))}
        if _are_images(value.get("members")):
            # As `Writer.write` and `Sample` have them.
            members |= value["members"]
            taken.add("members")
        if value.get("mask", True) is None:
            taken.add("mask")
        if image is None:
            raise SourceError(
                f"{at}: has no image: a mapping needs {', '.join(_IMAGE[:4])} ..., got {', '.join(value)}"
            )
        fields = {name: one for name, one in value.items() if name not in taken} | dict(value.get("json") or {})
        return Item(
            image=value[image],
            label=None if label is None else value[label],
            split=split or value.get("split", "train"),
            key=None if key is None else value[key],
            fields=fields or None,
            members=members or None,
        )
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise SourceError(f"{at}: must be a mapping or a pair (image, label), got {len(value)} values")
        if _is_further_image("label", value[1], None):
            return Item(image=value[0], split=split or "train", members={"mask": value[1]})
        return Item(image=value[0], label=value[1], split=split or "train")
    return Item(image=value, split=split or "train")


def _is_further_image(name: object, value: Any, shape: tuple[int, ...] | None) -> bool:
    """Return whether an entry of a mapping is an image beside a picture of `shape`.

    It is where it is encoded or a PIL image. An array is where its name or its shape says so.
    """
    if not isinstance(name, str) or not (is_member_name(name) or name in _LABEL):
        return False
    if not isinstance(value, np.ndarray):
        return _is_image(value)
    if value.ndim not in (2, 3):
        return False
    named = kind_of(name) == "mask" or name == "depth" or name in _LABEL
    if named and value.dtype.kind in "bui":
        return True
    # Floats are refused where they are called a mask or depth: in the json member they would be lost as such.
    fits = value.shape[:2] == shape
    return fits and name not in _LABEL and (named or value.dtype in (np.uint8, np.uint16))


def _are_images(value: Any) -> bool:
    is_mapping = isinstance(value, Mapping) and bool(value)
    return is_mapping and all(_is_image(one) or isinstance(one, np.ndarray) for one in value.values())


def _is_image(value: Any) -> bool:
    encoded = isinstance(value, bytes) or (isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes))
    return encoded or isinstance(value, Image.Image)


def _shape_of(image: Any) -> tuple[int, ...] | None:
    """Return height and width of a picture; None where they are not known without a look into its bytes."""
    if isinstance(image, np.ndarray):
        return tuple(map(int, image.shape[:2]))
    return (image.height, image.width) if isinstance(image, Image.Image) else None


def _picture(array: np.ndarray[Any, Any], at: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise SourceError(
            f"{at}: an array must be uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.dtype} of "
            f"shape {array.shape}"
        )
    if not array.size:
        raise SourceError(f"{at}: an array of shape {array.shape} has no pixels")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array))


def _png(image: Image.Image, at: str) -> bytes:
    if image.mode in _TO_RGB:
        image = image.convert("RGB")
    if image.mode not in _PNG_MODES:
        raise SourceError(f"{at}: a PIL image of mode {image.mode} has no PNG; convert it to RGB or L first")
    if image.mode == "RGB" and "transparency" not in image.info:
        return encode_png(np.asarray(image))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _plain(value: Any) -> Any:
    """Return NumPy's numbers and arrays as JSON values."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is none")
