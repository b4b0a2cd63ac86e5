"""Made-up findings on a small dataset, and checks that find them, for tests of what is done with findings."""

from collections.abc import Callable, Sequence
from pathlib import Path

import imgdata
from imgdata.auditing.checks import Check, Inputs
from imgdata.auditing.finding import Finding, Kind, Place
from imgdata.auditing.outcome import Outcome, Progress
from support.animals import animals

KINDS_OF_DUPLICATES: tuple[Kind, ...] = ("leak", "conflict", "exact-duplicate", "near-duplicate")


def place(folder: Path, key: str, split: str = "train") -> Place:
    """The sample of a key as a place."""
    found = imgdata.open(folder)[split]
    row = found.find(key)
    return Place(split, key, found.index.column("source")[row].as_py(), row)


def finding(folder: Path, kind: Kind, key: str, other: str = "", *, score: float = 1.0, label: str = "") -> Finding:
    """A finding about a sample of train, which is like `other`, `val:KEY` for one of val."""
    split, _, name = other.rpartition(":")
    return Finding(
        kind=kind,
        what="same bytes" if other else "wrong label",
        place=place(folder, key),
        other=place(folder, name, split or "train") if other else None,
        score=score,
        message="made up",
        evidence={"distance": 3.0},
        proposal="relabel" if label else "exclude",
        label=label,
    )


def check(name: str, findings: Sequence[Finding], kinds: tuple[Kind, ...], calls: list[str] | None = None) -> Check:
    """A check that finds just these; each time it runs, its name is added to `calls`."""

    def find(inputs: Inputs, progress: Progress) -> Outcome:
        if calls is not None:
            calls.append(name)
        progress(len(inputs.samples), len(inputs.samples))
        return Outcome(findings=tuple(findings), figures={"compared": len(inputs.samples)}, notes=(f"note of {name}",))

    return Check(name=name, what=f"made-up {name}", kinds=kinds, find=find)


def failing(name: str, error: Callable[[], BaseException], kinds: tuple[Kind, ...]) -> Check:
    """A check that ends with an error."""

    def find(inputs: Inputs, progress: Progress) -> Outcome:
        raise error()

    return Check(name=name, what=f"made-up {name}", kinds=kinds, find=find)


def animal_findings(folder: Path) -> list[Finding]:
    """One finding or two of each kind, on the dataset of `animals`."""
    return [
        finding(folder, "leak", "cat/000", "val:cat/000-1", score=0.99),
        finding(folder, "exact-duplicate", "cat/001", "cat/002"),
        finding(folder, "near-duplicate", "cat/003", "cat/002", score=0.9),
        finding(folder, "label", "cat/004", label="dog", score=0.97),
        finding(folder, "label", "cat/005", label="newt", score=0.6),
        Finding(kind="bias", what="format", place=None, score=0.5, message="cat is 98 % PNG", label="cat"),
    ]


def made_up_checks(folder: Path, calls: list[str] | None = None) -> tuple[Check, ...]:
    """Checks that find `animal_findings`: duplicates, labels, bias."""
    found = animal_findings(folder)
    return (
        check("duplicates", [one for one in found if one.kind in KINDS_OF_DUPLICATES], KINDS_OF_DUPLICATES, calls),
        check("labels", [one for one in found if one.kind == "label"], ("label",), calls),
        check("bias", [one for one in found if one.kind == "bias"], ("bias",), calls),
    )


__all__ = ["animal_findings", "animals", "check", "failing", "finding", "made_up_checks", "place"]
