"""What decides the bytes of the shards: the same source and the same options give the same files."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from imgdata.dataset.manifest import HASH_KINDS, MAX_PIXELS, HashKind
from imgdata.errors import OptionError
from imgdata.images.crop_ready import require_native
from imgdata.images.encode import Encoding

MIN_SHARD_BYTES = 10_240


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions:
    """Settings of the shards. They are checked when they are built; raises `OptionError`."""

    name: str | None = None
    """First part of every file name; None: taken from the source."""
    shard_bytes: int = 256_000_000
    """Most bytes of one tar, headers included; estimated when images are re-encoded."""
    shard_samples: int | None = None
    """Samples in one tar, instead of a size in bytes."""
    classes: tuple[str, ...] = ()
    """Ids of the classes to keep; empty: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of source names to leave out, such as `train/cat/*.png`."""
    views: tuple[str, ...] = ()
    """Views of a source that is a dataset: saved ones, each in place of its split, or steps for all other splits."""
    split: Mapping[str, float] = field(default_factory=dict)
    """Fractions that cut a source without splits, such as `{"train": 0.9, "val": 0.1}`."""
    seed: int = 0
    """Seed of the order of shuffled splits and of the cut into splits."""
    shuffle: bool = True
    """Shuffle globally every split but `val` and `test`."""
    encoding: Encoding = field(default_factory=Encoding)
    """Format, size and quality of the stored images; by default the bytes are copied unchanged."""
    check: Literal["decode", "header", "none"] = "decode"
    """Check of each image: decoded whole, its header read, or trusted."""
    on_bad: Literal["reject", "fail", "repair"] = "reject"
    """Treatment of damaged images: leave them out, stop at the first, or also make odd ones upright 8-bit RGB."""
    max_pixels: int = MAX_PIXELS
    """Images with more pixels (width x height in the header) are bad, and never decoded."""
    crop_ready: bool = False
    """Write JPEGs without loss with restart markers, so that random crops are decoded in less time."""
    strip: bool = False
    """With `crop_ready`: drop all metadata of JPEGs but those that pixels depend on."""
    key_prefix: str = ""
    """Text before the key of each sample, such as `2026/`: for an append whose keys are taken."""
    json_members: bool = False
    """Add a `json` member to each sample; always on when the source has further columns."""
    hash: HashKind = "sha256"
    """Hash of each whole shard in `dataset.json`. Images have a hash of their own, xxh64, in the index anyway."""

    def __post_init__(self) -> None:
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", self.name):
            raise OptionError(f"name must be 1 to 60 letters, digits, '_' or '-', got {self.name!r}")
        if not re.fullmatch(r"[A-Za-z0-9_/-]{0,40}", self.key_prefix):
            raise OptionError(f"key_prefix must be up to 40 letters, digits, '_', '-' or '/', got {self.key_prefix!r}")
        if self.shard_bytes < MIN_SHARD_BYTES:
            raise OptionError(f"shard size must be at least {MIN_SHARD_BYTES} bytes, got {self.shard_bytes}")
        if self.shard_samples is not None and self.shard_samples < 1:
            raise OptionError(f"samples per shard must be at least 1, got {self.shard_samples}")
        if not 0 <= self.seed < 2**63:
            raise OptionError(f"seed must be between 0 and 2**63 - 1, got {self.seed}")
        if self.max_pixels < 1:
            raise OptionError(f"max pixels must be at least 1, got {self.max_pixels}")
        for option, value, words in (
            ("check", self.check, ("decode", "header", "none")),
            ("on_bad", self.on_bad, ("reject", "fail", "repair")),
            ("hash", self.hash, HASH_KINDS),
        ):
            if value not in words:
                raise OptionError(f"{option} must be {', '.join(words[:-1])} or {words[-1]}, got {value!r}")
        for option, texts in (("classes", self.classes), ("exclude", self.exclude), ("views", self.views)):
            if isinstance(texts, str):
                raise OptionError(f"{option} must be a sequence of texts, got {texts!r}; write ({texts!r},)")
        for name in self.split:
            if not re.fullmatch(r"[a-z0-9_]+", name):
                raise OptionError(f"split names must be lower-case letters, digits and '_', got {name!r}")
        if self.strip and not self.crop_ready:
            raise OptionError("strip drops metadata of crop-ready JPEGs; give crop_ready too")
        if self.crop_ready and self.encoding.format in ("png", "webp"):
            raise OptionError(f"crop_ready is for JPEGs: format must be keep or jpg, got {self.encoding.format!r}")
        if self.crop_ready:
            require_native()
        if self.check == "none" and (self.on_bad == "repair"):
            raise OptionError("on_bad='repair' looks at every image; it can't be combined with check='none'")

    @property
    def encodes(self) -> bool:
        """Whether images may be re-encoded, so that the bytes depend on the encoder."""
        encoded = self.encoding.format != "keep" or self.encoding.resize is not None
        return encoded or self.on_bad == "repair" or self.crop_ready

    def to_dict(self) -> dict[str, object]:
        """Return the options as plain JSON values, for `dataset.json` and for comparing two runs."""
        values = dataclasses.asdict(self)
        values.update(values.pop("encoding"))
        values |= {"split": dict(self.split), "classes": list(self.classes), "exclude": list(self.exclude)}
        values["views"] = list(values["views"])
        return {name: value for name, value in values.items() if name not in _UNSAID or value != _UNSAID[name]}


_UNSAID: Mapping[str, object] = {
    "views": [],
    "crop_ready": False,
    "strip": False,
    "hash": "sha256",
    "key_prefix": "",
}
"""Options that are written only with other values than these: datasets and runs from before have no such options."""


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return a line `option: old -> new` for every option whose values differ."""
    old, new = {**_UNSAID, **old}, {**_UNSAID, **new}
    return [
        f"{option}: {old.get(option)!r} -> {new.get(option)!r}"
        for option in sorted(old.keys() | new.keys())
        if old.get(option) != new.get(option)
    ]
