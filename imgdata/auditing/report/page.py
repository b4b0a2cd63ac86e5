"""The result of an audit, the dataset -> the report as one HTML page, which needs no other file and no network."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from imgdata.auditing.finding import KINDS, Finding, Kind, Place
from imgdata.auditing.report.charts import figures, number, words
from imgdata.auditing.report.html import Content, Html, element
from imgdata.auditing.report.measured import shown_figures
from imgdata.auditing.report.pictures import safe_thumbnail
from imgdata.auditing.result import NAMES, AuditResult, CheckResult, overview
from imgdata.dataset.dataset import Dataset
from imgdata.version import __version__

SHOWN, LIKE = 40, 6
"""Cards of a kind that are shown; findings on a card, which are those of one sample or like one sample."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_TEXTS: Mapping[Kind, str] = {
    "leak": "The same picture, or nearly, in two splits: what is measured on one was learnt from the other.",
    "conflict": "The same picture, or nearly, under two labels: at least one of the labels is wrong.",
    "label": "Labels that a network which never saw them would not give, those most probably wrong first.",
    "exact-duplicate": "The same bytes or the same pixels, under one label and in one split.",
    "near-duplicate": "Nearly the same picture: encoded again, resized, mirrored or cropped.",
    "quality": "Pictures that are hard to learn from, or that are not what the others are.",
    "balance": "Classes and splits that differ in size, or in what their pictures are like.",
    "bias": "What tells the label without a look at the object: a network may learn this instead.",
}
_FIXES: Mapping[Kind, tuple[str, str]] = {
    "leak": ("exclude-leaks", "Leave them out of training"),
    "conflict": ("exclude-conflicts", "Leave both of each pair out"),
    "label": ("relabel>0.95", "Give the surest of them the proposed label"),
    "exact-duplicate": ("exclude-exact-duplicates", "Keep one of each"),
    "near-duplicate": ("exclude-duplicates", "Keep one of each, and one of each exact duplicate"),
    "quality": ("exclude-quality", "Leave out those that can't be used"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Page:
    """What the parts of the page are made of."""

    result: AuditResult
    dataset: Dataset


def page(result: AuditResult, dataset: Dataset) -> str:
    """Return the report: an overview, then each kind of finding with its pictures, evidence and commands."""
    facts = _Page(result=result, dataset=dataset)
    title = f"Audit of {result.name}"
    kinds = [kind for kind in KINDS if kind in result.counts]
    style = resources.files("imgdata.auditing.report").joinpath("style.css").read_text("utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"imgdata {__version__}"),
        element("title", title),
        element("style", Html(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the findings", href=f"#{kinds[0]}" if kinds else "#overview", class_="skip"),
        _header(result, title),
        element("main", _overview(result), [_section(facts, kind) for kind in kinds], _quiet_checks(result)),
        _footer(result),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(result: AuditResult, title: str) -> Html:
    splits = ", ".join(f"{name} {count:,}" for name, count in result.splits.items())
    views = "".join(f"; {split} as view {view}" for split, view in result.views.items())
    return element("header", element("h1", title), element("p", f"{splits}{views} — ", element("code", result.dataset)))


def _overview(result: AuditResult) -> Html:
    tiles = [element("li", _tile(result, kind)) for kind in KINDS]
    said = overview(result)
    return element(
        "section",
        element("h2", "Overview", id="overview-title"),
        element("p", f"{said[0].upper()}{said[1:]}.", class_="said"),
        element("ul", tiles, class_="tiles"),
        _notes(result.left_out),
        class_="overview",
        id="overview",
        aria_labelledby="overview-title",
    )


def _notes(notes: Sequence[str]) -> Content:
    return element("ul", [element("li", note) for note in notes], class_="notes") if notes else None


def _tile(result: AuditResult, kind: Kind) -> Html:
    count = result.counts.get(kind, 0)
    if count:
        return element("a", element("b", f"{count:,}"), NAMES[kind][count != 1], href=f"#{kind}")
    ran = [one for one in result.checks if kind in one.kinds and not one.skipped]
    return element(
        "span", element("b", "0" if ran else "—"), NAMES[kind][1], "" if ran else ": not checked", class_="none"
    )


def _section(page: _Page, kind: Kind) -> Html:
    found = page.result.of(kind)
    checks = _told_with(page.result, kind)
    groups = grouped(found)
    shown = groups[:SHOWN]
    small = all(len(group) == 1 and group[0].place and not group[0].other for group in shown)
    left = len(found) - sum(len(group[:LIKE]) for group in shown)
    heading = element(
        "h2", element("span", f"{len(found):,}", class_="count"), NAMES[kind][len(found) != 1].capitalize()
    )
    more = element("p", f"and {left:,} more in ", element("code", "findings.parquet"), class_="dim") if left else None
    return element(
        "section",
        heading,
        element("p", _TEXTS[kind]),
        _notes([note for one in checks for note in one.notes]),
        _fix(page.result, kind),
        _measured([one for one in checks if one.figures], kind),
        element("ol", [_card(page, group) for group in shown], class_="findings small" if small else "findings"),
        more,
        id=kind,
        aria_label=NAMES[kind][1],
    )


def grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return the findings that are like the same sample together, each group at the place of its first."""
    groups: dict[object, list[Finding]] = {}
    for at, finding in enumerate(findings):
        groups.setdefault((finding.other, finding.what) if finding.other else at, []).append(finding)
    return list(groups.values())


def _fix(result: AuditResult, kind: Kind) -> Content:
    if kind not in _FIXES:
        return None
    fix, what = _FIXES[kind]
    command = f"imgdata audit {shlex.quote(result.dataset)} --fix {_quoted(fix)} -o clean"
    return element("p", f"{what}, in a view; shards stay as they are:"), element(
        "pre", element("code", command), tabindex=0
    )


def _measured(checks: Sequence[CheckResult], kind: Kind) -> Content:
    return [
        element(
            "details",
            element("summary", f"What was measured: {one.what}"),
            _all_figures(one),
            class_="measured",
            # Of these the figures are the finding.
            open="" if kind in ("label", "balance", "bias") else None,
        )
        for one in checks
    ]


def _quiet_checks(result: AuditResult) -> Iterator[Html]:
    """Yield what checks say of whose kinds there is no finding."""
    for one in result.checks:
        if not set(one.kinds) & set(result.counts) and (one.figures or one.notes):
            heading = element("h2", one.what.capitalize())
            yield element("section", heading, _notes(one.notes), _all_figures(one), aria_label=one.what)


def _told_with(result: AuditResult, kind: Kind) -> list[CheckResult]:
    """Return the checks whose figures and notes stand with this kind: the first of theirs that has findings."""
    first = {
        one.name: next((kind for kind in KINDS if kind in one.kinds and kind in result.counts), None)
        for one in result.checks
    }
    return [one for one in result.checks if first[one.name] == kind]


def _all_figures(check: CheckResult) -> Html:
    return figures(shown_figures(check.name, check.figures))


def _card(page: _Page, group: Sequence[Finding]) -> Html:
    first = group[0]
    shown = group[:LIKE]
    more = element("p", f"and {len(group) - LIKE:,} more like it", class_="dim") if len(group) > LIKE else None
    places = [finding.place for finding in shown if finding.place]
    others = [first.other] if first.other else []
    pictures = [_picture(page, place, first.kind) for place in places]
    pictures += [_picture(page, place, first.kind, kept=True) for place in others]
    messages = dict.fromkeys(finding.message for finding in shown)
    return element(
        "li",
        element("div", element("h3", _title(page, first)), _score(first.score), class_="top"),
        element("div", pictures, class_="pictures") if pictures else None,
        [element("p", message) for message in messages],
        more,
        _evidence(shown),
        _command(page.result, shown),
        class_="finding wide" if len(pictures) > 3 else "finding",
    )


def _title(page: _Page, finding: Finding) -> str:
    """Return what was found: of a wrong label the class and the proposed one."""
    if finding.kind != "label" or finding.place is None or not finding.label:
        return finding.what.capitalize()
    names = {one.id: one.name for one in page.dataset.classes}
    return f"{_class_name(page, finding.place)} → {names.get(finding.label, finding.label)}"


def _class_name(page: _Page, place: Place) -> str:
    label = int(page.dataset[place.split].index.label_N[place.position])
    return page.dataset.classes[label].name if label >= 0 else "no label"


def _picture(page: _Page, place: Place, kind: Kind, *, kept: bool = False) -> Html:
    found = safe_thumbnail(page.dataset, place)
    name = _class_name(page, place)
    if isinstance(found, str):
        picture = element("div", found, class_="lost")
    else:
        address, width, height = found
        picture = element("img", src=address, width=width, height=height, alt=f"{place.key}, {name}", loading="lazy")
    role = element("em", " (measured on)" if kind == "leak" else " (kept)") if kept and kind != "conflict" else None
    text = element("b", name), place.split, role, element("span", place.key, class_="key")
    return element("figure", picture, element("figcaption", text), class_="picture kept" if role else "picture")


def _score(score: float) -> Html:
    bar = element("i", element("span", style=f"width:{min(max(score, 0), 1):.0%}"), aria_hidden="true")
    return element("span", f"score {score:.3f}", bar, class_="score")


def _evidence(group: Sequence[Finding]) -> Content:
    evidence = [finding for finding in group if finding.evidence]
    if not evidence:
        return None
    lists = []
    for finding in evidence:
        title = element("p", element("b", finding.place.key)) if finding.place and len(group) > 1 else None
        pairs = [
            element("div", element("dt", words(name)), element("dd", number(float(value))))
            for name, value in finding.evidence.items()
        ]
        lists.append((title, element("dl", pairs, class_="facts")))
    return element("details", element("summary", "Evidence"), lists)


def _command(result: AuditResult, group: Sequence[Finding]) -> Content:
    """Return the command that acts on these findings alone, or on those that are at least as sure."""
    first, dataset = group[0], shlex.quote(result.dataset)
    if first.place is None:
        return None
    split = first.place.split
    keys = [finding.place.key for finding in group if finding.place and finding.place.split == split]
    if first.proposal == "exclude":
        steps = "exclude=" + ",".join(f'"{key}"' if set(key) & set(' ,|&=<>!"') else key for key in keys)
        what, command = "Leave it out", f"imgdata save-view {dataset} clean {shlex.quote(steps)} --split {split}"
    elif first.proposal == "relabel":
        what = f"Label this and what is surer as proposed; here {first.label}"
        command = f"imgdata audit {dataset} --fix {_quoted(f'relabel>={first.score:.6g}')} --split {split} -o clean"
    else:
        what, command = "Look at it", f"imgdata inspect {dataset} --sample {shlex.quote(keys[0])}"
    return element("details", element("summary", what), element("pre", element("code", command), tabindex=0))


def _quoted(fix: str) -> str:
    # Without quotes a shell takes > for a file.
    return f"'{fix}'" if ">" in fix else fix


def _footer(result: AuditResult) -> Html:
    where = element("code", "findings.parquet"), " and ", element("code", "findings.json")
    return element(
        "footer",
        element("p", f"All {len(result.findings):,} findings are in ", where, ", beside this page."),
        element("p", f"Made by imgdata {__version__}. Shards were not changed."),
    )
