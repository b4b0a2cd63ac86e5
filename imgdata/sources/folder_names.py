"""Names of folders -> what they say: a split, masks or annotations, images of any class, a system's leftovers."""

import re
from collections.abc import Sequence

from imgdata.sources.splits import split_of_word

_TOKENS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_IMAGES = frozenset(
    (
        *("images", "image", "imgs", "img", "pictures", "picture", "pics", "photos", "photo", "jpegs", "jpeg", "jpg"),
        *("pngs", "png", "jpegimages", "pngimages"),
    )
)
_NEUTRAL = _IMAGES | frozenset(
    (
        *("data", "dataset", "set", "sets", "folder", "folders", "files", "all", "full", "raw", "seg", "stage", "part"),
        *("new", "final"),
    )
)
"""Words that don't name a class."""
_MASKS = frozenset(
    (
        *("mask", "masks", "annotation", "annotations", "annotated", "annots", "annot", "anno", "annos"),
        *("trimap", "trimaps", "segmentation", "segmentations", "segmentationclass", "segmentationobject"),
        *("segmentationclassaug", "segmap", "segmaps", "semantic", "panoptic", "groundtruth", "gt", "gts"),
        *("bbox", "bboxes", "boxes", "matte", "mattes", "alphamatte", "contours", "saliency", "heatmaps"),
        *("keypoints", "overlays"),
    )
)
_MASK_OR_CLASS = frozenset(("mask",))
"""Names that a class may have as well, such as `mask` and `no_mask`."""
_LABELS = frozenset(("label", "labels", "labelids", "gtfine", "depth", "edges", "instances", "target", "targets"))
"""Names of masks only where a folder of images is beside them."""
_UNLABELLED = _IMAGES | frozenset(("unknown", "unlabeled", "unlabelled", "test", "data", "all", "pred", "predict"))


def _tokens(name: str) -> list[str]:
    return [token.lower() for token in _TOKENS.findall(name)]


def split_of_folder(name: str) -> str | None:
    """Return the split that a folder's name means (`train2017`, `train_images`, `seg_test`, `ValData`), or None.

    The name must have one split word, and otherwise only numbers and words that don't name a class.
    """
    word = split_of_word(name)
    if word:
        return word
    tokens = [part for token in _tokens(name) for part in _parted(token)]
    words = [split for token in tokens if (split := split_of_word(token))]
    if len(words) != 1 or not all(split_of_word(token) or token.isdigit() or token in _NEUTRAL for token in tokens):
        return None
    return words[0]


def _parted(token: str) -> list[str]:
    """Return the two words in one such as `trainset` (`train`, `set`); other words as they are."""
    for ending in ("set", "images", "data", "imgs"):
        start = token.removesuffix(ending)
        if start != token and split_of_word(start):
            return [start, ending]
    return [token]


def without_split(name: str) -> str:
    """Return `name` without its split word: what `chest_train` and `chest_test` have in common."""
    return "_".join("" if split_of_word(token) else token for token in _tokens(name))


def holds_images_of_any_class(name: str) -> bool:
    """Return whether a folder's name says only that the folder holds images: `images`, `JPEGImages`, `img_data`."""
    tokens = _tokens(name)
    return any(token in _IMAGES for token in tokens) and all(token in _NEUTRAL or token.isdigit() for token in tokens)


def says_no_class(name: str) -> bool:
    """Return whether `name`, beside labelled splits, means images without labels: `images`, `unknown`, `test`."""
    tokens = _tokens(name)
    return bool(tokens) and all(token in _UNLABELLED or token.isdigit() for token in tokens) and not name.isdigit()


def mask_folders(names: Sequence[str], *, images_beside: bool) -> list[str]:
    """Return the folders among `names` that by their names hold masks or annotations of the images in the others.

    `images_beside` says that images lie beside these folders. Names that classes have as well (`mask`, `labels`) count
    only beside a folder of images.
    """
    beside = images_beside or any(map(holds_images_of_any_class, names))
    return [name for name in names if _means_masks(name, beside)]


def _means_masks(name: str, beside_images: bool) -> bool:
    tokens = _tokens(name)
    joined = "".join(tokens)
    sure = _MASKS if beside_images else _MASKS - _MASK_OR_CLASS
    if joined in sure or (beside_images and joined in _LABELS):
        return True
    known = sure | _NEUTRAL | (_LABELS if beside_images else frozenset())
    return any(token in sure for token in tokens) and all(
        token in known or token.isdigit() or split_of_word(token) for token in tokens
    )


_LEFTOVERS = frozenset(
    (
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        *("__macosx", "@eadir", "@tmp", "@sharebin", "@appstore", "@recycle", "@recently-snapshot", "@__thumb"),
        *("#recycle", "#snapshot", "~snapshot", "$recycle.bin", "$extend", "recycler", "recycled", "recycle.bin"),
        *("system volume information", "lost+found", "found.000", "network trash folder", "temporary items"),
        *("thevolumesettingsfolder", "__pycache__", "ipynb_checkpoints", "aquota.user", "aquota.group"),
    )
)
"""Names of what operating systems, network disks and tools leave behind, in lower case."""


def is_hidden(name: str) -> bool:
    """Return whether `name` starts with a dot, or is left behind by an operating system, a network disk or a tool."""
    return name.startswith(".") or name.lower() in _LEFTOVERS
