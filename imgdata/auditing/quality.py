"""Facts and the index -> poor images: blank, dark, blurred, tiny, rotated ..., with the distribution of each measure.

A measure has a limit, a constant with its reason here. What is beyond the limit is found, unless more than `COMMON` of
the images are: then it is what the dataset is like, and a note says so. Scores are 0.5 at the limit and 1 at the worst.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgdata.auditing.facts import Facts
from imgdata.auditing.finding import Finding, Proposal
from imgdata.auditing.outcome import Outcome, Progress
from imgdata.auditing.samples import Samples

WHATS = (
    "damaged",
    "blank",
    "dark",
    "bright",
    "blurred",
    "low information",
    "gray among colour",
    "odd aspect",
    "tiny",
    "huge",
    "rotated",
    "strongly compressed",
)
"""What can be found."""

COMMON = 0.2
"""Share of the images from which on a measure describes the dataset: digits have little information, all of them."""
FEW = 10
"""So many are found in any case."""
BLANK_CONTRAST = 0.01
"""2.5 of 255 levels of luma, and of each colour: what is left of one colour after lossy compression."""
DARK_BRIGHT = 0.3
"""Where 99 % of the picture are darker than this, a screen shows hardly anything; photographs of the night have lights.
CleanVision takes 0.32 of a brightness that weighs red and blue less."""
BRIGHT_DARK = 0.95
"""Where 95 % of the picture are brighter, little but white is left; also CleanVision's limit."""
BLURRED_SHARPNESS = 0.1
"""What a Gaussian blur of 6 or 7 pixels leaves of photographs of 500x375, whose sharpness is 0.5 to 2.6."""
LOW_ENTROPY = 3.0
"""Bits: as in a picture of 8 equal levels; photographs have 5 to 7.8. Also CleanVision's limit."""
GRAY_COLOURFULNESS = 0.008
"""2 of 255 levels: what lossy compression makes of gray."""
ODD_ASPECT = 3.0
"""Longer side over shorter one: a square crop shows a third of the picture, or a resize squashes it to a third.
Panoramas begin at 2, CleanVision's limit is 2.9."""
TINY_SIDE = 32
"""Pixels, as the square root of the area: CIFAR's; below that, people guess as well."""
SIZE_FACTOR = 4.0
"""Side against the median side of all images: enlarged four times, pictures are mush; of 16 times the pixels, a picture
takes the time of 16."""
COMPRESSED_QUALITY = 30
"""Quality of a JPEG on the scale of libjpeg, from 1 to 100: blocks of 8 pixels show below; the web has 75 and more."""
_BINS = 40
"""Bars of each distribution."""
_SHOWN = {
    2: "mirrored",
    3: "upside down",
    4: "mirrored, upside down",
    5: "mirrored, on its side",
    6: "on its side",
    7: "mirrored, on its side",
    8: "on its side",
}
"""EXIF orientation -> how the picture is stored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measure:
    """A number of each image, and from which limit on the image is poor."""

    what: str
    name: str
    """What the number is, for the evidence and the report."""
    value_M: NDArray[Any]
    limit: float
    worst: float
    """Number that has the score 1; infinite for those without an end. Below the limit where low numbers are bad."""
    applies_M: NDArray[np.bool_]
    """Images that the measure says something of."""
    message: str
    """Format of the sentence, with `value` and `limit`."""
    proposal: Proposal = "look"

    def find_poor(self) -> NDArray[np.bool_]:
        """Return which images are beyond the limit, bool `(M,)`."""
        beyond_M = self.value_M < self.limit if self.worst < self.limit else self.value_M > self.limit
        return np.asarray(beyond_M & self.applies_M)

    def scores(self, value_K: NDArray[Any]) -> NDArray[np.float64]:
        """Return the scores of numbers beyond the limit: 0.5 at the limit, 1 at the worst."""
        if np.isinf(self.worst):
            return np.asarray(1 - 0.5 * self.limit / value_K)
        return np.asarray(0.5 + 0.5 * np.clip((self.limit - value_K) / (self.limit - self.worst), 0, 1))


def find(samples: Samples, facts: Facts, progress: Progress = lambda done, total: None) -> Outcome:
    """Return the poor images of all kinds of `WHATS`, each image once for each kind."""
    findings = [*_damaged(samples, facts)]
    figures: dict[str, Any] = {}
    notes = []
    if facts.bad:
        reasons = Counter(why.partition(":")[0] for why in facts.bad.values()).most_common()
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        notes.append(
            f"{len(facts.bad):,} of {len(samples):,} images can't be used, and are in no other check: {counts}."
        )
    measures = [*_pixel_measures(facts), *_index_measures(samples, facts)]
    for done, measure in enumerate(measures):
        progress(done, len(measures) + 2)
        poor_M = measure.find_poor()
        figures[measure.what] = _distribution(measure, int(poor_M.sum()))
        count = int(poor_M.sum())
        if count > max(FEW, COMMON * measure.applies_M.sum()):
            notes.append(
                f"{count:,} of {len(samples):,} images are {measure.what}: no findings, it is what the dataset is like."
            )
        else:
            findings += _found(samples, measure, poor_M)
    findings += _gray(samples, facts, figures, notes)
    progress(len(measures) + 1, len(measures) + 2)
    findings += _rotated(samples, figures)
    progress(len(measures) + 2, len(measures) + 2)
    return Outcome(
        findings=tuple(sorted(findings, key=lambda finding: -finding.score)), figures=figures, notes=tuple(notes)
    )


def _pixel_measures(facts: Facts) -> list[_Measure]:
    seen_M = facts.decoded_M
    contrast_M = facts.contrast_M.astype(np.float64)
    for number in np.flatnonzero(seen_M & (contrast_M < BLANK_CONTRAST)).tolist():
        # Red may be as bright as green.
        contrast_M[number] = max(contrast_M[number], facts.colour_M16x16x3[number].std(axis=(0, 1)).max() / 255)
    # What is blank is dark or bright, and blurred, as well; once is enough.
    structured_M = seen_M & (contrast_M >= BLANK_CONTRAST)
    return [
        _Measure(
            what="blank",
            name="contrast",
            value_M=contrast_M,
            limit=BLANK_CONTRAST,
            worst=0.0,
            applies_M=seen_M,
            message="The picture has one colour only: its levels differ by {value:.4f} of 1, below {limit:g}.",
            proposal="exclude",
        ),
        _Measure(
            what="dark",
            name="bright",
            value_M=facts.bright_M,
            limit=DARK_BRIGHT,
            worst=0.0,
            applies_M=structured_M,
            message="The picture is dark: 99 % of it has at most {value:.2f} of full brightness, below {limit:g}.",
        ),
        _Measure(
            what="bright",
            name="dark",
            value_M=facts.dark_M,
            limit=BRIGHT_DARK,
            worst=1.0,
            applies_M=structured_M,
            message="The picture is bright: 95 % of it has at least {value:.2f} of full brightness, above {limit:g}.",
        ),
        _Measure(
            what="blurred",
            name="sharpness",
            value_M=facts.sharpness_M,
            limit=BLURRED_SHARPNESS,
            worst=0.0,
            applies_M=structured_M,
            message="The picture is blurred: its sharpest edges reach {value:.3f}, below {limit:g}.",
        ),
        _Measure(
            what="low information",
            name="entropy",
            value_M=facts.entropy_M,
            limit=LOW_ENTROPY,
            worst=0.0,
            applies_M=structured_M,
            message="The picture says little: {value:.1f} bits a pixel, below {limit:g}.",
        ),
        _Measure(
            what="strongly compressed",
            name="jpeg_quality",
            value_M=facts.jpeg_quality_M,
            limit=COMPRESSED_QUALITY,
            worst=1.0,
            applies_M=seen_M & (facts.jpeg_quality_M > 0),
            message="The picture is strongly compressed: a JPEG of quality {value:.0f}, below {limit:g}.",
        ),
    ]


def _index_measures(samples: Samples, facts: Facts) -> list[_Measure]:
    width_M, height_M = samples.array("width").astype(np.float64), samples.array("height").astype(np.float64)
    known_M = (width_M > 0) & (height_M > 0)
    shorter_M = np.maximum(np.minimum(width_M, height_M), 1)
    side_M = np.sqrt(width_M * height_M)
    median = float(np.median(side_M[known_M])) if known_M.any() else 0.0
    return [
        _Measure(
            what="odd aspect",
            name="aspect",
            value_M=np.maximum(width_M, height_M) / shorter_M,
            limit=ODD_ASPECT,
            worst=np.inf,
            applies_M=known_M,
            message="The picture has an odd aspect: one side is {value:.1f} times the other, more than {limit:g}.",
        ),
        _Measure(
            what="tiny",
            name="side",
            value_M=side_M,
            limit=max(TINY_SIDE, median / SIZE_FACTOR),
            worst=1.0,
            applies_M=known_M,
            message="The picture is tiny: as a square its side would have {value:.0f} pixels, fewer than {limit:.0f}.",
        ),
        _Measure(
            what="huge",
            name="side",
            value_M=side_M,
            limit=max(1.0, median * SIZE_FACTOR),
            worst=np.inf,
            applies_M=known_M,
            message="The picture is huge: as a square its side would have {value:.0f} pixels, more than {limit:.0f}.",
        ),
    ]


def _found(samples: Samples, measure: _Measure, poor_M: NDArray[np.bool_]) -> Iterator[Finding]:
    number_K = np.flatnonzero(poor_M)
    value_K = measure.value_M[number_K].astype(np.float64)
    for place, value, score in zip(
        samples.places(number_K), value_K.tolist(), measure.scores(value_K).tolist(), strict=True
    ):
        yield Finding(
            kind="quality",
            what=measure.what,
            place=place,
            score=score,
            message=measure.message.format(value=value, limit=measure.limit),
            evidence={measure.name: value, "limit": measure.limit},
            proposal=measure.proposal,
        )


def _distribution(measure: _Measure, found: int) -> dict[str, Any]:
    """Return the histogram of a measure: `_BINS` bars over all its numbers, up to 100 times the limit."""
    value_K = np.minimum(measure.value_M[measure.applies_M].astype(np.float64), 100 * measure.limit)
    count_B, edge_B1 = np.histogram(value_K, bins=_BINS) if len(value_K) else (np.zeros(_BINS), np.zeros(_BINS + 1))
    return {
        "measure": measure.name,
        "limit": float(measure.limit),
        "worse": "below" if measure.worst < measure.limit else "above",
        "found": found,
        "of": len(value_K),
        "edges": [float(edge) for edge in edge_B1],
        "counts": [int(count) for count in count_B],
    }


# --- What has no limit ------------------------------------------------------------------------------------


def _damaged(samples: Samples, facts: Facts) -> Iterator[Finding]:
    numbers = sorted(facts.bad)
    for place, number in zip(samples.places(numbers), numbers, strict=True):
        yield Finding(
            kind="quality",
            what="damaged",
            place=place,
            score=1.0,
            message=f"The image can't be used: {facts.bad[number]}.",
            proposal="exclude",
        )


def _gray(samples: Samples, facts: Facts, figures: dict[str, Any], notes: list[str]) -> Iterator[Finding]:
    """Yield gray pictures whose split, and whose class in it, is in colour; the score is the share of colour there."""
    gray_M = facts.decoded_M & (facts.colourfulness_M < GRAY_COLOURFULNESS) & (facts.contrast_M >= BLANK_CONTRAST)
    measure = _Measure(
        what="gray among colour",
        name="colourfulness",
        value_M=facts.colourfulness_M,
        limit=GRAY_COLOURFULNESS,
        worst=0.0,
        applies_M=facts.decoded_M,
        message="",
    )
    figures[measure.what] = _distribution(measure, int(gray_M.sum()))
    colour_M = np.ones(len(samples))
    for view in range(len(samples.views)):
        in_view_M = facts.decoded_M & (samples.view_M == view)
        if not in_view_M.any():
            continue
        split_share = 1 - float(gray_M[in_view_M].mean())
        # Unlabelled samples are a class of their own, at the end.
        label_K = np.where(samples.label_M < 0, len(samples.classes), samples.label_M)[in_view_M]
        count_C = np.bincount(label_K, minlength=len(samples.classes) + 1)
        gray_C = np.bincount(label_K, gray_M[in_view_M], minlength=len(samples.classes) + 1)
        share_C = 1 - gray_C / np.maximum(count_C, 1)
        colour_M[in_view_M] = np.where(share_C[label_K] > 0.5, split_share, 0.0)
    odd_M = gray_M & (colour_M >= 1 - COMMON)
    left_out = int(gray_M.sum() - odd_M.sum())
    if left_out:
        notes.append(
            f"{left_out:,} of {len(samples):,} images are gray, as others of their split or class: no findings."
        )
    number_K = np.flatnonzero(odd_M)
    for place, share, value in zip(
        samples.places(number_K), colour_M[number_K].tolist(), facts.colourfulness_M[number_K].tolist(), strict=True
    ):
        yield Finding(
            kind="quality",
            what=measure.what,
            place=place,
            score=share,
            message=f"The picture is gray, and {100 * share:.1f} % of its split are in colour.",
            evidence={"colourfulness": value, "limit": GRAY_COLOURFULNESS, "colour_share": share},
        )


def _rotated(samples: Samples, figures: dict[str, Any]) -> Iterator[Finding]:
    """Yield pictures with an EXIF orientation; those on their side are the surest, mirrored ones the least."""
    orientation_M = samples.array("orientation").astype(np.int64)
    figures["rotated"] = {
        "measure": "orientation",
        "counts": np.bincount(orientation_M, minlength=9)[:9].tolist(),
        "found": int((orientation_M > 1).sum()),
        "of": len(samples),
    }
    number_K = np.flatnonzero((orientation_M > 1) & (orientation_M <= 8))
    for place, orientation in zip(samples.places(number_K), orientation_M[number_K].tolist(), strict=True):
        yield Finding(
            kind="quality",
            what="rotated",
            place=place,
            score=1.0 if orientation >= 5 else 0.9 if orientation > 2 else 0.8,
            message=(
                f"The picture is stored {_SHOWN[orientation]} (EXIF orientation {orientation}): training sees it so."
            ),
            evidence={"orientation": orientation},
        )
