"""Figures of a check -> tables, bars and histograms of the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from imgdata.auditing.report.html import Content, Html, element, joined

_ROWS = 40
"""Rows of a table that are shown."""
_WIDTH, _HEIGHT, _FOOT = 320, 100, 18
"""Units of a histogram: of its bars, and below them of the text."""


def figures(values: Mapping[str, Any], level: int = 3) -> Html:
    """Return what a check measured: histograms, tables, and single numbers side by side."""
    single = {name: value for name, value in values.items() if not isinstance(value, Mapping | list | tuple)}
    parts: list[Content] = []
    if single:
        pairs = [(element("dt", words(name)), element("dd", number(value))) for name, value in single.items()]
        parts.append(element("dl", [element("div", pair) for pair in pairs], class_="facts"))
    drawn = {name: value for name, value in values.items() if _is_histogram(value)}
    for name, value in values.items():
        if name not in single and name not in drawn and value:
            parts.append(_block(words(name), value, level))
    if drawn:
        charts = [histogram(words(name), value) for name, value in drawn.items()]
        parts.append(element("div", charts, class_="charts"))
    return joined(parts)


def histogram(title: str, value: Mapping[str, Any]) -> Html:
    """Return bars of `counts` between `edges`, as SVG, with a line at `threshold` where there is one."""
    edges, counts = list(value["edges"]), list(value["counts"])
    most, step = max([*counts, 1]), _WIDTH / max(len(counts), 1)
    bars = []
    for at, count in enumerate(counts):
        # A bin that holds anything is to be seen.
        height = max(count / most * (_HEIGHT - 8), 1.5) if count else 0
        label = element("title", f"{number(edges[at])} to {number(edges[at + 1])}: {count:,}")
        bars.append(
            element(
                "rect",
                label,
                x=f"{at * step + 0.5:.1f}",
                y=f"{_HEIGHT - height:.1f}",
                width=f"{max(step - 1, 0.5):.1f}",
                height=f"{height:.1f}",
            )
        )
    low, high = edges[0], edges[-1]
    line: Content = None
    threshold = value.get("threshold")
    if threshold is not None and low <= threshold <= high and high > low:
        x = f"{(threshold - low) / (high - low) * _WIDTH:.1f}"
        line = element("line", x1=x, x2=x, y1=0, y2=_HEIGHT, class_="threshold")
    base = element("line", x1=0, x2=_WIDTH, y1=_HEIGHT, y2=_HEIGHT, class_="base")
    texts = (
        element("text", number(low), x=0, y=_HEIGHT + 13),
        element("text", number(high), x=_WIDTH, y=_HEIGHT + 13, text_anchor="end"),
        element("text", f"at most {most:,}", x=_WIDTH / 2, y=_HEIGHT + 13, text_anchor="middle"),
    )
    said = f"{title}: {sum(counts):,} values from {number(low)} to {number(high)}"
    drawing = element(
        "svg",
        (bars, base, line, texts),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + _FOOT}",
        role="img",
        aria_label=said,
        class_="histogram",
    )
    limit = "" if threshold is None else f"limit {number(threshold)}"
    return element("figure", element("figcaption", title, limit and element("span", limit, class_="dim")), drawing)


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    """Return rows of the same columns as a table; numbers stand at the right."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numeric = {name: any(_class(row.get(name)) for row in rows) for name in columns}
    head = element(
        "tr",
        [element("th", words(name), scope="col", class_="number" if numeric[name] else None) for name in columns],
    )
    body = [
        element(
            "tr",
            [element("td", number(row.get(name)), class_="number" if numeric[name] else None) for name in columns],
        )
        for row in rows[:_ROWS]
    ]
    return _scrolling(title, (element("thead", head), element("tbody", body)), len(rows) - _ROWS)


def bars(title: str, values: Mapping[str, float]) -> Html:
    """Return a number for each name as a table, with a bar where all are positive."""
    most = max(values.values())
    positive = most > 0 and min(values.values()) >= 0
    body = []
    for name, value in list(values.items())[:_ROWS]:
        bar = element("span", class_="bar", style=f"width:{value / most:.1%}") if positive and value else None
        cells = (element("th", name, scope="row"), element("td", number(value), class_="number"))
        body.append(element("tr", cells, element("td", bar, class_="bars", aria_hidden="true") if positive else None))
    return _scrolling(title, element("tbody", body), len(values) - _ROWS)


def number(value: Any) -> str:
    """Return a value for people: thousands with commas, fractions with three digits."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "—"
        return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number(one)}" for name, one in value.items())
    return str(value)


def words(name: str) -> str:
    """Return a name of the code as words."""
    return name.replace("_", " ")


def _block(title: str, value: Any, level: int) -> Html:
    if isinstance(value, Mapping):
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in value.values()):
            return bars(title, value)
        heading = element(f"h{min(level, 6)}", title)
        return element("div", heading, figures(value, level + 1), class_="group")
    if all(isinstance(one, Mapping) for one in value):
        return table(title, value)
    return element("p", element("b", title), f": {number(value)}")


def _is_histogram(value: Any) -> bool:
    return isinstance(value, Mapping) and {"edges", "counts"} <= value.keys()


def _scrolling(title: str, content: Content, more: int) -> Html:
    """Return a table that scrolls in itself where it is wider than the page, also by keyboard."""
    rest = element("p", f"and {more:,} more rows in findings.json", class_="dim") if more > 0 else None
    whole = element("table", element("caption", title), content)
    return element("div", whole, rest, class_="scroll", tabindex=0, role="region", aria_label=title)


def _class(value: Any) -> str | None:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else None
