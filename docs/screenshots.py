"""`make screenshots`: each page of the viewer, light, dark and on a phone -> `docs/images/view-*.png`.

The photographs are those that scikit-image and scikit-learn ship, under free licences: NASA's astronaut and Hubble's
deep field, a cat, a cup, a rocket (public domain or CC0), a temple and a flower (CC BY). Some labels are wrong on
purpose, and some pictures are there twice; the findings are those of `imgdata audit`, and where it did not look for
wrong labels, those that were planted.
"""

import argparse
import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks import photos  # noqa: E402 - found through the line above
from imgdata.auditing.finding import Finding, Place  # noqa: E402
from imgdata.auditing.findings_file import read_findings  # noqa: E402
from support.chromium import chromium  # noqa: E402

IMAGES = ROOT / "docs" / "images"
CLASSES = {"flower": 0, "astronaut": 1, "cat": 2, "coffee": 3, "temple": 4, "rocket": 5, "galaxies": 7}
SIZES = ((400, 300), (300, 300), (300, 400), (420, 280))
PAGES = {
    "browse": "",
    "sample": "sample=5&at=5",
    "overview": "page=overview",
    "review": "page=review&mark=finding:label",
    "pairs": "page=review&mark=finding:near-duplicate",
    "class": "page=review&how=grid&class=1",
}
LOOKS = {"light": (1280, 800, "light"), "dark": (1280, 800, "dark"), "phone": (390, 844, "light")}
MOST_BYTES = 300_000


def make_dataset(work: Path) -> None:
    """Shard, train and audit photographs in a folder: `out/`, `run/`, `report/`."""
    rows = []
    (work / "raw").mkdir(parents=True)
    names = list(CLASSES)
    for place, (name, photo) in enumerate(CLASSES.items()):
        for number, size in enumerate(SIZES * 8):
            (image,) = photos.photo_crops(1, size, seed=number, photo=photo)
            file = f"{name}-{number:02d}.jpg"
            (work / "raw" / file).write_bytes(photos.jpeg(image, 88))
            label = names[(place + 3) % len(names)] if number % 13 == 5 else name
            rows.append((file, label, 1990 + number, ("morning", "noon", "evening")[number % 3]))
            if number % 15 == 3:
                copy = file.replace(".jpg", "-copy.jpg")
                (work / "raw" / copy).write_bytes(photos.jpeg(image, 70))
                rows.append((copy, name, 1990 + number, "noon"))
    with (work / "raw" / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("file", "label", "year", "time"), *rows])
    shard = ("shard", "raw", "out", "--name", "photographs", "--split", "train=0.75,val=0.25", "--json-members")
    train = ("train", "out", "--model", "cnn", "--size", "64", "--epochs", "6", "--batch-size", "32", "--out", "run")
    for words in (shard, train, ("audit", "out", "-o", "report")):
        command = [sys.executable, "-m", "imgdata_cli.main", *words]
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)


def planted_labels(work: Path) -> list[Finding]:
    """Return the labels that are wrong on purpose, as an audit would find them."""
    import imgdata

    dataset = imgdata.open(work / "out")
    found = []
    for split in dataset.values():
        for position, sample in enumerate(split):
            name, row = sample.key.partition("-")[0], split.index.row(position)
            given = dataset.classes[int(sample.label or 0)].id
            if given != name:
                place = Place(split.name, row.key, row.source, position)
                message = f"labelled {given}, looks like {name}"
                found.append(
                    Finding(
                        kind="label",
                        what="another class",
                        place=place,
                        score=0.97 - 0.0005 * position,
                        message=message,
                        proposal="relabel",
                        label=name,
                    )
                )
    return sorted(found, key=lambda one: -one.score)


@contextmanager
def served(work: Path) -> Iterator[str]:
    """Yield the address of a viewer of `make_dataset`."""
    import imgdata
    from imgdata.web.server import Server
    from imgdata.web.viewer import viewer_of

    findings = list(read_findings(work / "report"))
    if all(one.kind != "label" for one in findings):
        findings += planted_labels(work)
    viewer = viewer_of(imgdata.open(work / "out"), author="ann", findings=findings, runs=[work / "run"])
    server = Server(viewer)
    server.start()
    try:
        yield server.address.url
    finally:
        server.close()


def take(page: Page, name: str, look: str) -> None:
    """Wait until a page is drawn, and save it in few colours."""
    if name == "sample":
        for part in page.query_selector_all("details:not([open]) summary"):
            part.click()
        page.wait_for_function("() => document.querySelectorAll('.made img').length === 6")
        page.wait_for_selector(".heat img")
        page.evaluate("() => document.querySelector('dialog[open]').scrollTo(0, 0)")
    if name == "overview":
        page.wait_for_selector(".matrix")
    page.wait_for_function(
        "() => [...document.querySelectorAll('img[src]')].every((one) => one.loading === 'lazy' || one.complete)"
    )
    page.wait_for_timeout(400)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    (IMAGES / f"view-{name}-{look}.png").write_bytes(small_png(image))


def small_png(image: Image.Image) -> bytes:
    """Return a picture as a PNG of at most `MOST_BYTES`: as it is, else in ever fewer colours."""
    for colours in (0, 256, 200, 128, 64):
        file = io.BytesIO()
        # Colours by how often they come: the plain ones of the page stay as they are.
        few = image.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=2) if colours else image
        few.save(file, "PNG", optimize=True)
        if file.tell() <= MOST_BYTES:
            break
    return file.getvalue()


def main() -> None:
    """Take all pictures, or those of the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", choices=[[], *PAGES], help="pages; all where none is named")
    parser.add_argument("--data", type=Path, help="folder where the dataset is, or is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.data or Path(temporary)
        if not (work / "report").exists():
            make_dataset(work)
        with served(work) as address, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            for look, (width, height, scheme) in LOOKS.items():
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                for name in arguments.pages or PAGES:
                    page = context.new_page()
                    page.goto(f"{address}#{PAGES[name]}")
                    page.wait_for_selector("main img, dialog[open] img")
                    take(page, name, look)
                    page.close()
                context.close()
            browser.close()


if __name__ == "__main__":
    main()
