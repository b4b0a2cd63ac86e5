"""The page says the limits of the code."""

import re

from imgdata.auditing import quality
from imgdata.auditing.fact_files import ROW_BYTES
from support.places import REPOSITORY

LIMITS = {
    "blank": quality.BLANK_CONTRAST,
    "dark": quality.DARK_BRIGHT,
    "bright": quality.BRIGHT_DARK,
    "blurred": quality.BLURRED_SHARPNESS,
    "low information": quality.LOW_ENTROPY,
    "gray among colour": quality.GRAY_COLOURFULNESS,
    "odd aspect": quality.ODD_ASPECT,
    "strongly compressed": quality.COMPRESSED_QUALITY,
}


def test_every_kind_of_poor_picture_stands_on_the_page_with_its_limit():
    text = (REPOSITORY / "docs" / "audit.md").read_text()
    section = text[text.index("## Poor pictures") : text.index("## How well duplicates")]
    rows = dict(re.findall(r"^\| `([^`]+)` \|.*\| ?([\d.]*) ?\|$", section, re.MULTILINE))
    assert tuple(rows) == quality.WHATS
    assert {what: float(limit) for what, limit in rows.items() if limit} == LIMITS
    assert f"{ROW_BYTES / 1000:.1f} GB" in section
