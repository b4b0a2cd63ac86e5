"""Samples and what their pixels say -> copies: in the same split, in another one (leaks), under another label.

Of copies one is kept: in a test split rather than in others, in these rather than in training; then the one of more
pixels, of more bytes, the first. Findings stand on the others, so that a leak is taken out of training and no test set
changes. A picture in two splits is a leak, two of one split are duplicates; under different labels they are a conflict
beside the leak, and instead of the duplicate.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.copies import EXACT, WHATS, can_be_told_apart, find_links
from imgdata.auditing.facts import Facts
from imgdata.auditing.finding import Finding, Kind, Proposal, listed
from imgdata.auditing.groups import Links, around_representatives, best_by_other, join
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples
from imgdata.auditing.workers import Workers


def find(
    samples: Samples,
    facts: Facts,
    *,
    threads: int | None = None,
    workers: Workers | None = None,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Return leaks, conflicts, exact and near duplicates; the same ones whatever the threads.

    A finding stands on the sample that is not kept; `other` is the one that is. Raises `ShardError`.
    """
    place_M = places_kept_first(samples)
    links = find_links(samples, facts, place_M, threads=threads, workers=workers, progress=progress)
    findings, figures = _findings(samples, links, place_M)
    flat = int(np.sum(facts.decoded_M & ~can_be_told_apart(facts)))
    notes = []
    if flat:
        notes.append(
            f"{flat:,} of {len(samples):,} pictures have too little structure, or too few levels, to be told from "
            "others: only copies of theirs with the same pixels are found"
        )
    return Outcome(findings=findings, figures={**figures, "samples": len(samples), "flat": flat}, notes=tuple(notes))


def places_kept_first(samples: Samples) -> NDArray[np.int64]:
    """Return each sample's place in the order in which samples are kept rather than their copies, int64 `(M,)`."""
    rank_V = np.array([_rank(view.split) * len(samples.views) + at for at, view in enumerate(samples.views)])
    pixels_M = samples.array("width").astype(np.int64) * samples.array("height").astype(np.int64)
    order_M = np.lexsort((-samples.array("size").astype(np.int64), -pixels_M, rank_V[samples.view_M]))
    place_M = np.empty(len(samples), np.int64)
    place_M[order_M] = np.arange(len(samples))
    return place_M


def _rank(split: str) -> int:
    return 2 if split.startswith("train") else 0 if split.startswith("test") else 1


def _findings(samples: Samples, links: Links, place_M: NDArray[np.int64]) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    across_L = samples.view_M[links.kept_L] != samples.view_M[links.other_L]
    kept_label_L, other_label_L = samples.label_M[links.kept_L], samples.label_M[links.other_L]
    conflict_L = (kept_label_L != other_label_L) & (kept_label_L >= 0) & (other_label_L >= 0)
    leaks = best_by_other(_passed_on(links.take(across_L), links), place_M)
    conflicts = best_by_other(links.take(conflict_L), place_M)
    duplicates = around_representatives(links.take(~across_L & ~conflict_L), place_M)
    exact_L = duplicates.what_L < EXACT
    findings = [
        *_said(samples, leaks, "leak", "exclude"),
        *_said(samples, conflicts, "conflict", "look"),
        *_said(samples, duplicates.take(exact_L), "exact-duplicate", "exclude"),
        *_said(samples, duplicates.take(~exact_L), "near-duplicate", "exclude"),
    ]
    members = Counter(duplicates.kept_L.tolist())
    splits = [view.split for view in samples.views]
    figures: dict[str, Any] = {
        "groups": len(members),
        "largest_group": max(members.values(), default=-1) + 1,
        "duplicates": _counts(duplicates),
        "leaks": _counts(leaks),
        "conflicts": _counts(conflicts),
        "leaks_between": {
            f"{splits[other]} in {splits[kept]}": count
            for (other, kept), count in sorted(
                Counter(
                    zip(samples.view_M[leaks.other_L].tolist(), samples.view_M[leaks.kept_L].tolist(), strict=True)
                ).items()
            )
        },
    }
    return listed(findings), figures


def _passed_on(leaks: Links, links: Links) -> Links:
    """Return the leaks with those of exact copies: what is a copy to the pixel of a leak is one as well."""
    leak_of = {sample: row for row, sample in enumerate(leaks.other_L.tolist())}
    exact = links.take(links.what_L < EXACT)
    rows, others = [], []
    for kept, other in zip(exact.kept_L.tolist(), exact.other_L.tolist(), strict=True):
        if kept in leak_of:
            rows.append(leak_of[kept])
            others.append(other)
    passed = leaks.take(np.array(rows, np.int64))
    return join(
        [
            leaks,
            Links(
                kept_L=passed.kept_L,
                other_L=np.array(others, np.int64),
                what_L=passed.what_L,
                score_L=passed.score_L,
                distance_L=passed.distance_L,
            ),
        ]
    )


def _counts(links: Links) -> dict[str, int]:
    return {what: int(np.sum(links.what_L == at)) for at, what in enumerate(WHATS)}


_SAID = (
    "has the same bytes as {other}",
    "has the same pixels as {other}, in another file",
    "is nearly the same picture as {other}",
    "is {other} mirrored",
    "shows a part of {other}, or {other} a part of it",
)


def _said(samples: Samples, links: Links, kind: Kind, proposal: Proposal) -> Iterator[Finding]:
    places, others = samples.places(links.other_L), samples.places(links.kept_L)
    labels, other_labels = samples.label_M[links.other_L].tolist(), samples.label_M[links.kept_L].tolist()
    rows = zip(links.what_L.tolist(), links.score_L.tolist(), links.distance_L.tolist(), strict=True)
    for row, (what, score, distance) in enumerate(rows):
        place, other = places[row], others[row]
        name = f"{other.source} in {other.split}" if place.split != other.split else other.source
        message = f"{place.source} {_SAID[what].format(other=name)}"
        if kind == "conflict":
            one, another = (samples.classes[label].name for label in (labels[row], other_labels[row]))
            message += f", and they are labelled {one} and {another}"
        evidence = {"correlation": round(score, 4)} if what >= EXACT else {}
        yield Finding(
            kind=kind,
            what=WHATS[what],
            place=place,
            score=min(1.0, max(0.0, round(score, 4))),
            other=other,
            message=f"{message}.",
            evidence={**evidence, "distance": distance} if distance >= 0 else evidence,
            proposal=proposal,
        )
