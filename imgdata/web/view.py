"""A dataset, and what is shown beside it -> a viewer; from Python a frame in a notebook, or the browser."""

import html
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from imgdata.auditing.finding import Finding, Place
from imgdata.auditing.findings_file import read_findings
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OptionError
from imgdata.loose.opened import open as open_dataset
from imgdata.web.server import Server, open_browser, require_extra
from imgdata.web.viewer import Viewer, viewer_of

HEIGHT = 720
"""Pixels of a frame in a notebook."""


class Shown:
    """A viewer that runs beside the program; a notebook shows it as a frame."""

    def __init__(self, server: Server, *, height: int = HEIGHT) -> None:
        self._server, self._height = server, height

    @property
    def url(self) -> str:
        """The address, token included."""
        return self._server.address.url

    def close(self) -> None:
        """End the server; what was decided is on disk already."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<imgdata view: {self.url}>"

    def _repr_html_(self) -> str:
        address = html.escape(self._server.address.frame_url)
        return f'<iframe src="{address}" width="100%" height="{self._height}" title="imgdata view"></iframe>'


def view(
    dataset: Dataset | str | Path,
    *,
    findings: str | Path | Sequence[Finding] | None = None,
    runs: Sequence[str | Path] = (),
    features: Sequence[str | Path] = (),
    author: str | None = None,
    reviews: str | Path | None = None,
    port: int = 0,
    browser: bool | None = None,
    height: int = HEIGHT,
) -> Shown:
    """Show a dataset: in a notebook as a frame, elsewhere in the browser. Returns what has the address, and `close`.

    Args:
        dataset: A dataset or its folder.
        findings: What an audit found: a report's folder, or `imgdata.audit(...).findings`.
        runs: Folders of runs: what they predict, where they look, what they are wrong about.
        features: Files of `imgdata features`, for the nearest samples.
        author: Who decides; None: the user of this machine.
        reviews: File of the decisions; None: `reviews/decisions.jsonl` in the dataset's folder.
        port: Port of this machine, 127.0.0.1; 0 for any that is free.
        browser: Whether to open the browser; None: where this is no notebook.
        height: Pixels of the frame.

    Raises:
        OptionError: No samples, findings of another dataset, a folder that is no run, a port in use.
        ShardError: The dataset can't be read.
        MissingExtraError: The extra `web` is not installed.
    """
    require_extra()
    viewer = open_viewer(dataset, findings=findings, runs=runs, features=features, author=author, reviews=reviews)
    server = Server(viewer, port=port, framed=True)
    server.start()
    shown = Shown(server, height=height)
    if browser is None:
        browser = not _in_notebook()
    if browser:
        open_browser(shown.url)
    return shown


def open_viewer(
    dataset: Dataset | str | Path,
    *,
    findings: str | Path | Sequence[Finding] | None = None,
    runs: Sequence[str | Path] = (),
    features: Sequence[str | Path] = (),
    author: str | None = None,
    reviews: str | Path | None = None,
) -> Viewer:
    """Return the viewer of a dataset, after everything that may be wrong was looked at. Raises as `view` does."""
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    found: Sequence[Finding] = ()
    if findings is not None:
        where = str(findings) if isinstance(findings, str | Path) else "findings"
        found = read_findings(findings) if isinstance(findings, str | Path) else findings
        _check_fit(found, opened, where)
    missing = next((file for file in features if not Path(file).is_file()), None)
    if missing is not None:
        raise OptionError(f"{missing}: no such file; `imgdata features RUN {opened.path} -o {missing}` writes it")
    return viewer_of(
        opened,
        author=author,
        reviews=None if reviews is None else Path(reviews),
        findings=tuple(found),
        runs=[Path(run) for run in runs],
        features=[Path(file) for file in features],
    )


def _check_fit(findings: Sequence[Finding], dataset: Dataset, where: str) -> None:
    """Raise `OptionError` where a finding is on a sample that the dataset doesn't have at its place."""
    places = [place for finding in findings for place in (finding.place, finding.other) if place is not None]
    for name in sorted({place.split for place in places}):
        inside = [place for place in places if place.split == name]
        wrong = inside[0] if name not in dataset else _misplaced(inside, dataset, name)
        if wrong is not None:
            raise OptionError(
                f"{where}: not of this dataset: it names {wrong.key!r} as sample {wrong.position} of {name}, which "
                f"{dataset.path} doesn't have there; run `imgdata audit {dataset.path} -o REPORT` again"
            )


def _misplaced(places: Sequence[Place], dataset: Dataset, split: str) -> Place | None:
    samples = len(dataset[split])
    outside = next((place for place in places if not 0 <= place.position < samples), None)
    if outside is not None:
        return outside
    keys = dataset[split].index.column("key").take([place.position for place in places]).to_pylist()
    return next((place for place, key in zip(places, keys, strict=True) if place.key != key), None)


def _in_notebook() -> bool:
    """Return whether this program is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    running = None if shell is None else shell.get_ipython()
    return running is not None and "IPKernelApp" in running.config
