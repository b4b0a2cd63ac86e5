"""`imgdata audit`: a dataset -> what is wrong in it, as a report; and a view without what is wrong."""

import json
from pathlib import Path
from typing import Any

import click

from ..options.common import dataset_argument, json_option, quiet_option
from ..options.engine import chosen_engine, engine_options, ray_prints_to_stderr
from ..options.source import raw_options


@click.command(short_help="Find wrong labels, duplicates, leaks, poor pictures, bias.")
@dataset_argument
@raw_options
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="Folder of the report; with --fix, name of the view.",
)
@click.option(
    "--model", metavar="RUN", help="Run trained on this dataset, for wrong labels.  [frozen features of a network]"
)
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; may be repeated.  [all]")
@click.option(
    "--view", "views", multiple=True, metavar="VIEW", help="A saved view, for its split, or steps, for all splits."
)
@click.option("--only", metavar="CHECKS", help="Only these checks, with commas between.  [all]")
@click.option("--skip", metavar="CHECKS", help="Leave these checks out: duplicates, labels, ...")
@click.option(
    "--fail-on", multiple=True, metavar="KIND[>N]", help="Exit with 1 where there are more findings of a kind than N."
)
@click.option("--fix", "fixes", metavar="FIXES", help="Save a view that leaves out or relabels what was found.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="With --fix: act on the findings in this report.  [the last audit]",
)
@click.option("--overwrite", is_flag=True, help="With --fix: replace the view of this name.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1; auto: a GPU.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads that work.  [all cores]")
@engine_options("looks at pictures")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of folds and trials.")
@quiet_option
@json_option("counts and figures")
def command(
    dataset: Path,
    output: str | None,
    fixes: str | None,
    report: Path | None,
    overwrite: bool,
    fail_on: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Look for leaks between splits, duplicates, wrong labels, poor pictures, imbalance and hidden bias in DATASET.

    Writes a report: a page to open in a browser, and all findings as Parquet and JSON. No shard is changed. After
    Ctrl-C the same command resumes.

    \b
      imgdata audit out/ -o report/
      imgdata audit out/ -o report/ --model runs/a
      imgdata audit out/ --only duplicates --fail-on leak
      imgdata audit out/ -o report/ --engine ray --address auto

    --fix saves the view NAME of -o, in which samples are left out or relabelled, each for a reason that `imgdata
    inspect DATASET --view NAME` shows. It acts on the findings of the last audit, and computes what is missing. A view
    is of one split: train, or what --split names. FIXES, with commas between: exclude-leaks, exclude-conflicts,
    exclude-duplicates, exclude-exact-duplicates, exclude-quality, exclude-labels>P, relabel>P; P is the least score.

    \b
      imgdata audit out/ --fix "exclude-leaks,relabel>0.95" -o clean
      imgdata train out/ --view clean --out runs/b
    """  # noqa: D301
    from imgdata.errors import OptionError

    options["engine"] = chosen_engine(click.get_current_context())
    del options["address"], options["task_cpus"], options["task_memory"]
    for name in ("only", "skip"):
        options[name] = tuple(part.strip() for part in (options[name] or "").split(",") if part.strip())
    if fixes is None:
        if report is not None or overwrite:
            raise OptionError(f"--{'report' if report is not None else 'overwrite'} is for --fix; -o names the report")
        _audit(dataset, output, fail_on, quiet, as_json, options)
        return
    if output is None:
        raise OptionError("--fix needs -o NAME, the name of the view that it saves")
    if fail_on:
        raise OptionError("--fail-on is for an audit, --fix acts on what was found before; leave one of them out")
    _fix(dataset, output, fixes, report, overwrite, quiet, as_json, options)


def _audit(
    dataset: Path, output: str | None, fail_on: tuple[str, ...], quiet: bool, as_json: bool, options: dict[str, Any]
) -> None:
    from imgdata.auditing.options import exceeded, parse_limits
    from imgdata.auditing.report.files import PAGE
    from imgdata.auditing.run import audit

    from ..display.audit import AuditDisplay, print_result
    from ..display.console import BAD, GOOD, screen, tell

    limits = parse_limits(fail_on)
    with AuditDisplay(quiet=quiet) as display, ray_prints_to_stderr(options["engine"]):
        try:
            found = audit(dataset, output, progress=display.progress, retried=display.retried, **options)
        except KeyboardInterrupt:
            display.interrupted()
            raise
    if as_json:
        place = None if output is None else str(output)
        click.echo(json.dumps({**found.to_dict(), "findings": len(found), "report": place}))
    elif not quiet:
        print_result(found)
    if output is not None and not quiet:
        tell(screen(), GOOD, "report", f"{Path(output) / PAGE}")
    failed = exceeded(found.findings, limits)
    for line in failed:
        tell(screen(), BAD, "failed", f"{line} (--fail-on)")
    if failed:
        raise SystemExit(1)


def _fix(
    dataset: Path,
    name: str,
    fixes: str,
    report: Path | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    import imgdata
    from imgdata.auditing.fixing import save_fixed

    from ..display.audit import AuditDisplay, print_fixed

    opened = imgdata.open(dataset)
    with AuditDisplay(quiet=quiet) as display, ray_prints_to_stderr(options["engine"]):
        saved = save_fixed(
            opened,
            fixes,
            name,
            report=report,
            overwrite=overwrite,
            progress=display.progress,
            retried=display.retried,
            **options,
        )
    if not quiet:
        print_fixed(saved, opened)
    if as_json:
        click.echo(json.dumps(saved.to_dict()))
