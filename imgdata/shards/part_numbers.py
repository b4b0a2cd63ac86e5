"""`I/N`, or what a scheduler puts into the environment -> which part of a conversion a process writes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from imgdata.errors import OptionError
from imgdata.tables import counted

SLURM = "SLURM_ARRAY_TASK_"
_HOW = "give --part I/N, such as --part 3/64 for the fourth of 64 parts"


@dataclass(frozen=True)
class Cut:
    """All shards, cut into parts; the scheduler numbers them `first`, `first + step`, ..."""

    parts: int
    first: int = 0
    step: int = 1

    def index(self, number: int) -> int | None:
        """Return the part, from 0, that has this number; None when no part has."""
        index, rest = divmod(number - self.first, self.step)
        return index if not rest and 0 <= index < self.parts else None

    def part_of(self, shard: int) -> int:
        """Return the number of the part that writes the shard at position `shard` of the plan."""
        return self.first + shard % self.parts * self.step


def parse_part(text: str) -> tuple[int, Cut]:
    """Return the part and the cut that `I/N` means. Raises `OptionError`."""
    index, _, parts = text.partition("/")
    if not (index.isdecimal() and parts.isdecimal()):
        raise OptionError(f"part must be I/N, such as 3/64, got {text!r}")
    return checked_part(int(index), int(parts))


def checked_part(part: int, parts: int) -> tuple[int, Cut]:
    """Return part number `part` of `parts`. Raises `OptionError`."""
    if parts < 1:
        raise OptionError(f"part must be of 1 or more parts, such as 0/1, got {part}/{parts}")
    if not 0 <= part < parts:
        raise OptionError(f"part must be 0/{parts} to {parts - 1}/{parts}, got {part}/{parts}")
    return part, Cut(parts)


def part_from_environment(environment: Mapping[str, str], noted: Cut | None) -> tuple[int, Cut]:
    """Return the part that this process writes, by a Slurm array, else by `RANK` and `WORLD_SIZE`.

    `noted` is the cut of earlier parts. An array with fewer tasks, whose numbers are all in that cut, runs those parts
    again; any other array is a cut of its own. Raises `OptionError`.
    """
    if f"{SLURM}ID" in environment:
        return _from_slurm(environment, noted)
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return checked_part(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"))
    raise OptionError(f"neither {SLURM}ID nor RANK and WORLD_SIZE are set, which would say which part this is; {_HOW}")


def _from_slurm(environment: Mapping[str, str], noted: Cut | None) -> tuple[int, Cut]:
    task, tasks, first, last = (_number(environment, f"{SLURM}{name}") for name in ("ID", "COUNT", "MIN", "MAX"))
    step = _number(environment, f"{SLURM}STEP") if f"{SLURM}STEP" in environment else 1
    if noted is not None and tasks < noted.parts:
        index = noted.index(task)
        if index is not None and noted.index(first) is not None and noted.index(last) is not None:
            return index, noted
    cut = Cut(tasks, first, max(step, 1))
    index = cut.index(task)
    # A list of tasks, such as 3,17, doesn't tell the position of each.
    if index is None or cut.index(last) != tasks - 1:
        raise OptionError(
            f"an array of the {tasks} tasks {first} to {last} doesn't tell which part task {task} is; {_HOW}"
        )
    return index, cut


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None:
        raise OptionError(f"{name} isn't set, without which nothing says which part this is; {_HOW}")
    if not text.isdecimal():
        raise OptionError(f"{name} must be a number, got {text!r}; {_HOW}")
    return int(text)


def array_text(numbers: Iterable[int]) -> str:
    """Return whole numbers as Slurm's `--array` takes them: `0-5,9`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def missing_text(missing: int, count: int, numbers: Iterable[int], cut: Cut | None) -> str:
    """Return what to say of `missing` of `count` shards, at the positions `numbers` of the plan, and what to do."""
    text = f"{missing:,} of {counted(count, 'shard')} {'is' if missing == 1 else 'are'} missing"
    if cut is None:
        return f"{text}, as no part has run yet; run `imgdata shard SOURCE OUT --part I/N` for each part"
    numbers = list(numbers)
    parts = {cut.part_of(number) for number in numbers}
    indices = sorted({number % cut.parts for number in numbers})
    again = f"--array={array_text(parts)}"
    example = f"--part {indices[0]}/{cut.parts}"
    return (
        f"{text}, of {counted(len(parts), 'part')} of {cut.parts}; run {'it' if len(parts) == 1 else 'them'} again "
        f"({again}; the first is {example}), then --finish"
    )
