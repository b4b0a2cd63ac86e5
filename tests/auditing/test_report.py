"""The report in a browser: one file, no scripts, no faults; it fits a phone, and can be read in light and in dark."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

import imgdata
from imgdata.auditing.finding import Finding
from imgdata.auditing.options import AuditOptions
from imgdata.auditing.report.charts import figures, number
from imgdata.auditing.report.files import write_report
from imgdata.auditing.report.page import LIKE, SHOWN, grouped, page
from imgdata.auditing.run import run_audit
from support.audits import KINDS_OF_DUPLICATES, check, finding
from support.chromium import asked, browse
from support.rawdata import class_folders

EVIL = "<script>alert(1)"
FIGURES = {
    "compared": 26,
    "share": 0.031,
    "distances": {"edges": [0, 1, 2, 3], "counts": [5, 0, 2], "threshold": 2},
    "samples": {EVIL: 10, "dog": 6},
    "rows": [{"class": EVIL, "accuracy": 0.5}, {"class": "dog", "accuracy": None}],
    "deeper": {"first": {"a": 1}, "text": "x"},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    work = tmp_path_factory.mktemp("report")
    raw = class_folders(work / "raw", {"train": 8, "val": 2}, (EVIL, "dog", "newt"))
    imgdata.shard(raw, work / "out", name="animals", workers=1)
    return imgdata.open(work / "out")


@pytest.fixture(scope="module")
def result(dataset, tmp_path_factory):
    """All kinds of findings, more than are shown, one of a picture that can't be decoded."""
    folder, keys = dataset.path, dataset["train"].index.column("key").to_pylist()
    found = [finding(folder, "leak", keys[0], f"val:{dataset['val'].index.column('key')[0].as_py()}")]
    found += [finding(folder, "exact-duplicate", key, keys[0]) for key in keys[1:]]
    found += [finding(folder, "label", key, label="dog", score=1 - at / 100) for at, key in enumerate(keys * 2)]
    found.append(replace(found[0], kind="conflict", message=f"under {EVIL} and dog"))
    found.append(Finding(kind="bias", what="format", place=None, score=0.5, message=f"{EVIL} is 98 % PNG"))
    checks = [
        check("duplicates", [one for one in found if one.kind in KINDS_OF_DUPLICATES], KINDS_OF_DUPLICATES),
        check("labels", [one for one in found if one.kind == "label"], ("label",)),
        check("bias", [one for one in found if one.kind == "bias"], ("bias",)),
        check("quality", [], ("quality",)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGDATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = run_audit(dataset, AuditOptions(), checks=checks)
    return replace(made, checks=tuple(replace(one, figures=FIGURES) for one in made.checks))


@pytest.fixture(scope="module")
def report(result, dataset, tmp_path_factory):
    return write_report(result, dataset, tmp_path_factory.mktemp("files") / "report")


class Outline(HTMLParser):
    """Elements of a page in order, with their attributes, and the texts in them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def outline(report):
    return Outline(report.read_text("utf-8"))


def test_the_page_needs_no_other_file_no_network_and_no_script(outline, report):
    assert outline.of("script", "link", "iframe", "object", "form") == []
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for attributes in outline.of("img"))
    assert all(attributes["href"].startswith("#") for attributes in outline.of("a"))
    (policy,) = (one for one in outline.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "url(" not in report.read_text("utf-8")


def test_names_from_the_data_stay_text(outline, report):
    assert EVIL not in report.read_text("utf-8")
    assert any(EVIL in text for text in outline.texts)


def test_the_page_says_what_it_is_to_those_who_do_not_see_it(outline):
    assert outline.of("html")[0]["lang"] == "en"
    assert [len(outline.of(tag)) for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert all(attributes["alt"] for attributes in outline.of("img"))
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert sorted(ids) == sorted(set(ids))
    assert {attributes["href"][1:] for attributes in outline.of("a")} <= set(ids)
    assert all(attributes.get("aria-label") for attributes in outline.of("svg"))


def test_the_overview_comes_first_and_each_kind_has_its_count(outline, result):
    shown = " ".join(" ".join(outline.texts).split())
    assert shown.index("Overview") < shown.index("1 leak") < shown.index("Same bytes")
    for kind, count in result.counts.items():
        assert f"#{kind}" in [attributes["href"] for attributes in outline.of("a")], count
    assert "made-up" not in "".join(result.counts)
    assert "imgdata audit" in shown
    assert "--fix exclude-leaks -o clean" in shown


def test_what_is_shown_is_bounded_and_the_rest_is_counted(outline, result):
    labels = result.of("label")
    assert len(labels) > SHOWN
    shown = " ".join(" ".join(outline.texts).split())
    assert f"and {len(labels) - SHOWN:,} more in findings.parquet" in shown
    assert [len(group) for group in grouped(result.of("exact-duplicate"))] == [23]
    assert f"and {23 - LIKE:,} more like it" in shown


def test_a_picture_that_cannot_be_decoded_is_said_to_be_so(result, dataset, monkeypatch):
    monkeypatch.setattr(type(dataset["train"]), "read", lambda self, position: b"\xff\xd8no picture")
    assert "can&#x27;t be decoded: " in page(result, dataset) or "can't be decoded: " in page(result, dataset)


def test_an_audit_that_finds_nothing_has_a_page_too(result, dataset):
    text = page(replace(result, findings=()), dataset)
    assert "Nothing odd found." in text


def test_figures_become_tables_bars_and_histograms():
    shown = Outline(figures(FIGURES))
    assert len(shown.of("svg")) == 1
    assert len(shown.of("table")) == 3
    assert EVIL in "".join(shown.texts)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234567, "1,234,567"), (0.03149, "0.0315"), (2.0, "2"), (12345.6, "12,346"), (True, "yes"), (None, "—"),
     (float("nan"), "—"), ([1, 2.5], "1, 2.5"), ({"a": 1}, "a 1"), ("x", "x")],
)  # fmt: skip
def test_numbers_are_written_for_people(value, shown):
    assert number(value) == shown


@pytest.mark.slow
def test_a_browser_shows_it_without_a_fault(report, tmp_path):
    shown, faults = browse(report, tmp_path, "--dump-dom")
    assert "Audit of animals" in shown
    assert faults == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1400])
def test_nothing_is_wider_than_the_screen(report, tmp_path, width):
    script = (
        "[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, pre, .skip, svg') && "
        "one.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)"
        ".map(one => one.outerHTML.slice(0, 90))"
    )
    assert asked(report, script, tmp_path, width=width) == []


CONTRAST = """(() => {
  const rgb = text => text.match(/[0-9.]+/g).map(Number);
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = one => { for (; one; one = one.parentElement) { const c = rgb(getComputedStyle(one).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = {};
  document.querySelectorAll('details').forEach(one => one.open = true);
  for (const one of document.querySelectorAll('body *')) {
    if (![...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const svg = one.closest('svg'), style = getComputedStyle(one);
    const a = light(rgb(svg ? style.fill : style.color)), b = light(behind(svg ? svg.parentElement : one));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const name = one.tagName + '.' + (one.getAttribute('class') || '');
    found[name] = Math.min(found[name] || 99, ratio);
  }
  return found;
})()"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_texts_stand_out_from_what_is_behind_them(report, tmp_path, scheme):
    ratios = asked(report, CONTRAST, tmp_path, arguments=(f"--blink-settings=preferredColorScheme={scheme}",))
    assert len(ratios) > 15
    # WCAG 2.2, level AA: 4.5 to 1.
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < 4.5} == {}
