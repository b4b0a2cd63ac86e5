"""The pages in a real headless Chromium: a million samples, filters, one sample, review, a killed server."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import imgdata
from benchmarks.synthetic_index import plant
from support.chromium import chromium
from support.digit_runs import quick
from support.patience import PATIENCE_S
from support.viewer_sites import (
    Running,
    digits_with_metadata,
    label_findings,
    pair_findings,
    running,
    write_report,
)

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'imgdata[dev]'")

pytestmark = pytest.mark.slow
MILLION = 1_000_000
LABELS, PAIRS = 24, 3
# While the server is gone, the browser says so itself.
GONE = re.compile(r"ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET")


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    """A browser for all tests."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A viewer of a million samples that share a few pictures."""
    with running(plant(tmp_path_factory.mktemp("million"), MILLION, 2, size=(120, 90))) as server:
        yield server


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Path, Path]:
    """Digits with metadata, and the report of an audit of them."""
    out = digits_with_metadata(tmp_path)
    report = write_report(tmp_path / "report", [*label_findings(out, LABELS), *pair_findings(out, PAIRS)])
    return out, report


@contextmanager
def opened(
    browser: "playwright.Browser", url: str, *, width: int = 1200, height: int = 800, scheme: str = "light"
) -> Iterator["playwright.Page"]:
    """A page; that it said nothing on its console is claimed when the block ends."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(1000 * PATIENCE_S)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.goto(url)
    yield page
    context.close()
    assert [line for line in said if not GONE.search(line)] == []


def settled(page: "playwright.Page") -> None:
    """Wait until all pictures that can be seen have been drawn."""
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.cell:not([hidden]) img')];"
        " return all.length && all.every((one) => one.src && one.complete && one.naturalWidth) }"
    )


def focused(page: "playwright.Page") -> str:
    """Return what a screen reader says of the picture that has the focus."""
    return page.evaluate("() => document.activeElement.querySelector('img')?.alt ?? ''")


def count(page: "playwright.Page", text: str) -> None:
    """Wait until the line beside the pages says this."""
    page.wait_for_function("(text) => document.getElementById('count').textContent === text", arg=text)


def test_the_grid_shows_the_first_and_the_last_of_a_million(browser, million):
    with opened(browser, million.url) as page:
        count(page, "1,000,000 samples")
        settled(page)
        grid = page.get_by_role("grid")
        columns, rows = (int(grid.get_attribute(name)) for name in ("aria-colcount", "aria-rowcount"))
        assert rows == -(-MILLION // columns)
        page.keyboard.press("Tab")
        page.locator(".cell").first.focus()
        assert focused(page).startswith("0, ")
        page.keyboard.press("Control+End")
        page.wait_for_function("() => document.activeElement.querySelector('img')?.alt.startsWith('999999, ')")
        settled(page)
        row = page.evaluate("() => document.activeElement.parentElement.getAttribute('aria-rowindex')")
        assert int(row) == rows
        assert page.evaluate("() => document.querySelector('.scroller > div').offsetHeight") <= 7_500_000
        assert page.locator(".cell").count() < 400
        for key, first in (("ArrowLeft", 999_998), ("ArrowUp", 999_998 - columns), ("Home", None), ("Control+Home", 0)):
            page.keyboard.press(key)
            if first is not None:
                page.wait_for_function(
                    "(text) => document.activeElement.querySelector('img')?.alt.startsWith(text)", arg=f"{first}, "
                )


def test_the_wheel_moves_by_its_own_distance_and_the_bar_reaches_both_ends(browser, million):
    with opened(browser, f"{million.url}#at=500000") as page:
        settled(page)
        top = """() => [...document.querySelectorAll('.cell')]
            .map((one) => [one.getBoundingClientRect().top, Number(one.dataset.place)])
            .filter((one) => one[0] > 100)
            .sort((a, b) => a[0] - b[0] || a[1] - b[1])[0]"""
        before = page.evaluate(top)
        page.mouse.move(600, 500)
        page.mouse.wheel(0, 20)
        page.wait_for_function(f"(before) => ({top})()[0] !== before", arg=before[0])
        after = page.evaluate(top)
        assert (after[1], after[0] - before[0]) == (before[1], pytest.approx(-20, abs=1))
        for place, there in ((0, "0, "), (7_500_000, "999999, ")):
            page.evaluate("(top) => document.querySelector('.scroller').scrollTop = top", place)
            page.wait_for_function(
                "(text) => [...document.querySelectorAll('.cell img')].some((one) => one.alt.startsWith(text))",
                arg=there,
            )


def test_a_finger_moves_the_pictures_by_its_own_distance_and_a_fling_asks_for_nothing(browser, million):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    context.set_default_timeout(1000 * PATIENCE_S)
    page = context.new_page()
    page.goto(f"{million.url}#at=500000")
    settled(page)
    top = "(place) => document.querySelector(`.cell[data-place='${place}']`).getBoundingClientRect().top"
    before = page.evaluate(top, 500_000)
    session = context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [{"x": 200, "y": 600}]),
        *(("touchMove", [{"x": 200, "y": y}]) for y in range(590, 539, -10)),
    ):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function(f"(before) => Math.abs(({top})(500000) - before + 60) < 1", arg=before)
    session.send("Input.dispatchTouchEvent", {"type": "touchCancel", "touchPoints": []})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    places = [number * 200_000 for number in range(20)]
    # One step a frame: a fling shows every place for a moment.
    page.evaluate(
        "async (places) => { for (const place of places) { document.querySelector('.scroller').scrollTop = place;"
        " await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame) } }",
        places,
    )
    settled(page)
    assert len([url for url in asked if "/api/rows" in url]) <= 3
    context.close()


def test_filters_and_order_stand_in_the_address(browser, million):
    with opened(browser, million.url) as page:
        settled(page)
        page.keyboard.press("/")
        page.keyboard.type("4242")
        page.wait_for_function("() => location.hash.includes('text=4242')")
        count(page, "299 of 1,000,000 samples")
        page.get_by_label("Class").fill("class3")
        page.keyboard.press("Enter")
        page.get_by_label("Sort by").select_option("key")
        page.get_by_label("smallest first").click()
        page.wait_for_function("() => location.hash.includes('sort=-key')")
        settled(page)
        first = page.locator(".cell img").first.get_attribute("alt")
        address, said = page.url, page.locator("#count").text_content()
        page.reload()
        settled(page)
        assert (page.url, page.locator("#count").text_content()) == (address, said)
        assert page.locator(".cell img").first.get_attribute("alt") == first
        assert first.endswith(", class3")
        page.get_by_role("button", name="Clear").click()
        count(page, "1,000,000 samples")


def test_one_sample_opens_zooms_and_leads_to_the_next(browser, digits):
    out, report = digits
    with running(out, report) as server, opened(browser, f"{server.url}#sort=key") as page:
        settled(page)
        page.locator(".cell").nth(3).focus()
        page.keyboard.press("Enter")
        dialog = page.locator("#sample")
        dialog.get_by_text("4 of 200").wait_for()
        key = dialog.get_by_role("heading").first.text_content()
        assert dialog.get_by_text(f"{key}.cls").count() == 1
        # Metadata is text, whatever it holds.
        assert dialog.get_by_text(re.compile(r"^<b>\d+</b>$")).count() == 1
        scale = page.locator(".scale").text_content()
        page.keyboard.press("+")
        assert page.locator(".scale").text_content() != scale
        page.keyboard.press("0")
        page.keyboard.press("ArrowRight")
        dialog.get_by_text("5 of 200").wait_for()
        page.get_by_text("What training makes of it").click()
        page.wait_for_function(
            "() => { const all = [...document.querySelectorAll('.made img')];"
            " return all.length === 6 && all.every((one) => one.naturalWidth > 0) }"
        )
        page.keyboard.press("Escape")
        page.wait_for_function("() => document.activeElement.dataset.place === '4'")
        page.get_by_role("button", name="More").click()
        page.get_by_role("button", name="Read the metadata").click()
        page.get_by_label("side").select_option("left")
        page.wait_for_function("() => location.hash.includes('is.json.side=left')")
        count(page, "133 of 200 samples")


def test_twenty_are_reviewed_by_keyboard_and_none_is_lost_with_a_killed_server(browser, digits, tmp_path):
    out, report = digits
    server = Running(out, report)
    try:
        with opened(browser, server.url) as page:
            settled(page)
            page.get_by_role("link", name="Review").click()
            page.get_by_role("link", name="Labels that may be wrong").click()
            for number, key in enumerate(["Enter"] * 6 + ["a", "x", "f", "s"], 1):
                page.get_by_text(f"{number - 1} of {LABELS} decided").wait_for()
                page.keyboard.press(key)
            page.get_by_text(f"10 of {LABELS} decided").wait_for()
            server.kill()
            page.keyboard.press("x")
            page.get_by_text("the server does not answer").wait_for()
            page.get_by_text(f"10 of {LABELS} decided").wait_for()
            server = Running(out, report)
            page.goto(f"{server.url}#page=review&mark=finding:label")
            page.get_by_text(f"10 of {LABELS} decided").wait_for()
            page.keyboard.press("u")
            page.get_by_text(f"9 of {LABELS} decided").wait_for()
            page.keyboard.press("c")
            page.keyboard.type("7")
            page.keyboard.press("Enter")
            for number in range(10, 20):
                page.get_by_text(f"{number} of {LABELS} decided").wait_for()
                page.keyboard.press("Enter")
            page.get_by_text(f"20 of {LABELS} decided").wait_for()
            with page.expect_download() as download:
                page.get_by_role("link", name="Export CSV").click()
            rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
            assert [row["action"] for row in rows] == [
                *["relabel"] * 6,
                *["accept", "exclude", "flag", "skip", "undo"],
                *["relabel"] * 11,
            ]
            assert (rows[11]["new"], {row["author"] for row in rows}) == ("7", {"ann"})
            page.get_by_role("button", name="Save as a view").click()
            page.get_by_label("Name of the view").fill("looked")
            page.get_by_role("button", name="Save", exact=True).click()
            page.get_by_text("17 relabelled, 1 excluded").wait_for()
            page.get_by_text("imgdata train").wait_for()
    finally:
        server.kill()
    assert len(imgdata.load_view(imgdata.open(out), "looked")) == 159
    result = imgdata.train(out, tmp_path / "run", quick(view="looked", epochs=1))
    assert result.config["samples"]["train"] == 159


def test_of_two_that_are_alike_one_is_kept_and_a_class_is_checked_at_a_glance(browser, digits):
    out, report = digits
    with (
        running(out, report) as server,
        opened(browser, f"{server.url}#page=review&mark=finding:near-duplicate") as page,
    ):
        page.get_by_text("Keep which?").wait_for()
        assert page.locator(".pair figure").count() == 2
        for number, key in enumerate(["1", "2", "b"], 1):
            page.keyboard.press(key)
            page.get_by_text(f"{number} of {PAIRS} decided").wait_for()
        page.get_by_text("All decided").wait_for()
        page.goto(f"{server.url}#page=review&how=grid&class=3&split=val")
        page.reload()
        page.wait_for_function("() => document.activeElement.classList.contains('cell')")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        page.get_by_text("1 are not, the other 3 are 3").wait_for()
        page.keyboard.press("Enter")
        page.get_by_text("All decided").wait_for()
        page.keyboard.press("u")
        page.get_by_text("0 are not, the other 4 are 3").wait_for()
    decided = [json.loads(line) for line in (out / "reviews" / "decisions.jsonl").read_text().splitlines()]
    actions = [one["action"] for one in decided]
    assert actions == [
        "accept",
        "exclude",
        "accept",
        "exclude",
        "accept",
        *["accept", "flag"],
        *["accept"] * 2,
        *["undo"] * 4,
    ]
    first, second, third, fourth = (one["key"] for one in decided[:4])
    keys = imgdata.open(out)["train"].index.column("key").to_pylist()
    assert [first, second, fourth, third] == [keys[-1], keys[-2], keys[-3], keys[-4]]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_every_page_fits_its_width_and_can_be_reached_by_tab(browser, digits, width, scheme):
    out, report = digits
    with running(out, report) as server, opened(browser, server.url, width=width, scheme=scheme) as page:
        for address in ("", "page=overview", "page=review", "page=review&mark=finding:label", "sample=3"):
            page.goto(f"{server.url}#{address}")
            page.reload()
            page.wait_for_function("() => document.querySelector('main img, main table, dialog[open] img')")
            wide = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], address
            without = page.evaluate(
                "() => [...document.querySelectorAll('img')].filter((one) => one.src && !one.alt).length"
            )
            assert without == 0, address
            page.keyboard.press("Tab")
            assert page.evaluate("() => document.activeElement !== document.body"), address
            unnamed = page.evaluate(
                "() => [...document.querySelectorAll('button, a, input, select')].filter((one) =>"
                " !(one.textContent.trim() || one.getAttribute('aria-label') || one.title || one.labels?.length"
                " || one.querySelector('img[alt]'))).map((one) => one.outerHTML)"
            )
            assert unnamed == [], address
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.get_by_role("heading", name="Keys").wait_for()
