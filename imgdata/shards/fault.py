"""What is wrong, and where: the result of verifying."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that isn't as it was written."""

    shard: str
    """File name of the shard, or of the sidecar."""
    key: str
    """The sample; empty when it concerns the whole file."""
    byte: int
    """Where in the file; -1 when it concerns the whole file. For an image that differs, its first byte."""
    what: str
    """What is wrong, for people."""
    serious: bool = True
    """False for what people change on purpose and no reader depends on: the dataset card, `README.md`."""

    def __str__(self) -> str:
        place = f" byte {self.byte}" if self.byte >= 0 else ""
        return f"{self.shard}{place}{f' key {self.key}' if self.key else ''}: {self.what}"
