"""`imgdata view`: a dataset -> pages in the browser, or a folder of pages that need no server."""

from pathlib import Path
from typing import Any

import click

from ..options.common import dataset_argument
from ..options.source import raw_options

LOCAL = "127.0.0.1"


@click.command(short_help="Look at samples in the browser, and review labels.")
@dataset_argument
@raw_options
@click.option(
    "--findings", type=click.Path(path_type=Path), metavar="REPORT", help="Report of `imgdata audit`, as a queue."
)
@click.option(
    "--run",
    "runs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="RUN",
    help="Folder of a run, to see what it predicts; may be repeated.",
)
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="File of `imgdata features`, for the nearest samples; may be repeated.",
)
@click.option("--author", metavar="NAME", help="Who decides.  [the user of this machine]")
@click.option(
    "--reviews",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File of the decisions.  [DATASET/reviews/decisions.jsonl]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on.  [any that is free]")
@click.option("--host", default=LOCAL, show_default=True, metavar="HOST", help="Address to listen on.")
@click.option("--allow-remote", is_flag=True, help="Let other machines connect, without encryption; for --host.")
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening the browser.")
@click.option(
    "--static",
    "site",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a page of samples that needs neither a server nor Python.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUE",
    help="With --static, which samples: split, class, text, format, mark, width_min, ... and sort.",
)
@click.option("--most", type=click.IntRange(min=1), help="With --static, samples at most.  [2000]")
def command(
    dataset: Path,
    host: str,
    allow_remote: bool,
    port: int,
    no_browser: bool,
    site: Path | None,
    where: tuple[str, ...],
    most: int | None,
    **options: Any,
) -> None:
    """Look at DATASET in the browser: all samples in a grid, one sample, an overview, and a review by keyboard.

    Only this machine can connect, and only with the token in the address. Ctrl-C ends the viewer; each decision is on
    disk before the next picture shows.

    \b
      imgdata view out/
      imgdata view out/ --findings report/
      imgdata view out/ --run runs/a --features vectors.npz
      imgdata view out/ --port 8734 --no-browser
      imgdata view out/ --static site/ --where split=val --where class=cat
    """  # noqa: D301 - click wants a real backspace
    from imgdata.errors import OptionError

    if site is not None:
        _write(dataset, site, where, most, options)
        return
    if where or most is not None:
        raise OptionError(f"--{'where' if where else 'most'} is for --static; in the browser filter on the page")
    from imgdata.web.server import Server, open_browser, require_extra
    from imgdata.web.view import open_viewer

    from ..display.console import ODD, say, screen, tell

    _check_host(host, allow_remote)
    require_extra()
    viewer = open_viewer(dataset, **options)
    server = Server(viewer, host=host, port=port)
    if allow_remote:
        tell(
            screen(),
            ODD,
            "note",
            f"everybody who reaches {host} and has the address can see all samples and decide; nothing is encrypted",
        )
    url = server.address.url
    if no_browser:
        say(url)
    elif open_browser(url):
        tell(screen(), "green", "open", f"{url}  (Ctrl-C ends it)")
    else:
        say(url)
        tell(screen(), ODD, "note", "no browser was found here: open this address in one")
    server.run()


def _write(dataset: Path, site: Path, where: tuple[str, ...], most: int | None, options: dict[str, Any]) -> None:
    from imgdata.web.site import MOST, check_site_folder, write_site
    from imgdata.web.view import open_viewer

    from ..display.console import GOOD, ODD, Counting, note, screen, tell

    check_site_folder(site)
    viewer = open_viewer(dataset, **options)
    with Counting("writing", "samples", quiet=False) as display:
        found = write_site(viewer, site, where=where, most=most or MOST, progress=display.progress)
    if found.shown < found.selected:
        note(screen(), f"the first {found.shown:,} of {found.selected:,} samples; --where selects, --most N takes more")
    if found.unshown:
        tell(screen(), ODD, "note", f"{found.unshown:,} without a picture; the page says why")
    tell(screen(), GOOD, "done", f"{found.shown:,} samples: {found.page}")


def _check_host(host: str, allow_remote: bool) -> None:
    from imgdata.errors import OptionError
    from imgdata.web.server import is_loopback

    if not allow_remote and not is_loopback(host):
        raise OptionError(
            f"--host {host} lets other machines connect: everybody who has the address sees all samples and decides, "
            "and nothing is encrypted; add --allow-remote if that is meant, or keep 127.0.0.1 and use "
            "`ssh -L 8734:127.0.0.1:8734 THIS_MACHINE` with --port 8734"
        )
