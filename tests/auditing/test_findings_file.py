"""Findings as files: what is written is read back the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgdata
from imgdata.auditing.finding import KINDS, Finding, Place
from imgdata.auditing.findings_file import finding_row, json_lines, read_parquet, write_parquet
from imgdata.errors import OptionError, ShardError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
SCORES = st.floats(0, 1)
PLACES = st.builds(Place, TEXTS, TEXTS, TEXTS, st.integers(0, 2**40))
FINDINGS = st.builds(
    Finding,
    kind=st.sampled_from(KINDS),
    what=TEXTS,
    place=st.none() | PLACES,
    score=SCORES,
    other=st.none() | PLACES,
    message=TEXTS,
    evidence=st.dictionaries(TEXTS, st.floats(allow_nan=False), max_size=3),
    proposal=st.sampled_from(("exclude", "relabel", "look")),
    label=TEXTS,
)


@given(found=st.lists(FINDINGS, max_size=5))
def test_findings_read_back_are_those_that_were_written(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_parquet(folder / "findings.parquet", found, {"figures": {"a": [1, 2.5]}})
    assert imgdata.read_findings(folder) == tuple(found)
    assert read_parquet(folder / "findings.parquet")[1]["figures"] == {"a": [1, 2.5]}


@given(found=st.lists(FINDINGS, max_size=5))
def test_the_json_file_has_the_same_rows(found):
    content = json.loads(b"".join(json_lines(found, {"name": "x"})))
    assert (content["format"], content["name"]) == ("imgdata audit", "x")
    finite = [row | {"evidence": {k: v for k, v in row["evidence"].items() if abs(v) < 1e400}} for row in rows(found)]
    read = [
        row | {"evidence": {k: v for k, v in row["evidence"].items() if v is not None}} for row in content["findings"]
    ]
    assert read == finite


def rows(found):
    return [finding_row(one) for one in found]


def test_a_folder_without_findings_says_what_writes_them(tmp_path):
    with pytest.raises(OptionError, match=r"no findings\.parquet there; `imgdata audit DATASET -o .*` writes it"):
        imgdata.read_findings(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"key,label\n"])
def test_damaged_findings_say_so(tmp_path, content):
    (tmp_path / "findings.parquet").write_bytes(content)
    with pytest.raises(ShardError, match=r"findings\.parquet: no findings of an audit .*; audit again"):
        imgdata.read_findings(tmp_path)
