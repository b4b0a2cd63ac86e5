"""Everything that imgdata raises on purpose.

ImgdataError
├── OptionError         an option, or a combination of options, has no meaning
├── SourceError         the raw dataset can't be found, recognised or read
├── ImageError          one image can't be used; carries a short reason code
├── ShardError          a shard, an index or a sidecar is damaged or missing
├── OutputError         the output folder can't be written: busy, other options, full, read-only
├── FunctionError       a function of the user's in a recipe failed, or returned what is no picture
├── TrainingError       a run can't go on: the loss is no number, or memory is out
├── DeviceMemoryError   a GPU, or what decodes for it, has no memory left; a `MemoryError` as well
└── MissingExtraError   an optional package is not installed; names the extra
"""


class ImgdataError(Exception):
    """Base of all errors that tell a user where, what is wrong and what to do."""


class OptionError(ImgdataError):
    """An option, or a combination of options, has no meaning."""


class SourceError(ImgdataError):
    """The raw dataset can't be found, recognised or read."""


class ImageError(ImgdataError):
    """One image can't be used.

    `reason` is a short stable code (`empty`, `truncated`, `corrupt`, `not-an-image`, `too-large`,
    `unsupported`, `unreadable`, `missing`) that is counted and written to `rejects.jsonl`; `detail` is for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """Return how to unpickle the error: exceptions pickle by their message, but this one takes two arguments."""
        return type(self), (self.reason, self.detail)


class ShardError(ImgdataError):
    """A shard, an index or a sidecar is damaged or missing."""


class OutputError(ImgdataError):
    """The output folder can't be written: busy, made with other options, full or read-only."""


class FunctionError(ImgdataError):
    """A function of the user's in a recipe failed on a sample, or returned what is no picture.

    Its cause is what the function raised, with the traceback. `position` is the sample's place in its split, or None
    for a whole batch; `reason` is what happened.
    """

    def __init__(self, reason: str, position: int | None = None, where: str = "") -> None:
        where = where or ("" if position is None else f"the sample at position {position}")
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason, self.position = reason, position


class TrainingError(ImgdataError):
    """A training run can't go on."""


class DeviceMemoryError(ImgdataError, MemoryError):
    """A GPU, or what decodes for it, has no memory left."""


class MissingExtraError(ImgdataError):
    """An optional package is not installed."""
