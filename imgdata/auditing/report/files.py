"""A result, a folder -> `index.html`, `findings.parquet` and `findings.json` in it, all of one audit."""

import contextlib
import tempfile
from pathlib import Path

from imgdata.auditing.findings_file import JSON, PARQUET, is_report, json_lines, write_parquet
from imgdata.auditing.report.page import page
from imgdata.auditing.result import AuditResult
from imgdata.dataset.dataset import Dataset
from imgdata.errors import OutputError
from imgdata.storage.atomic import output_error, whole_file

PAGE = "index.html"


def check_report_folder(folder: Path) -> None:
    """Make the folder of a report, before hours are spent on its content.

    Raises `OutputError` for a folder that holds something else than a report, or that can't be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: must be a folder for the report, got a file; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What a run that was killed left is hidden.
        if any(not path.name.startswith(".") for path in folder.iterdir()) and not is_report(folder):
            raise OutputError(
                f"{folder}: holds files that are no report of an audit; choose a new or empty folder, such as "
                f"{folder / 'report'}"
            )
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise output_error(error, folder) from error


def write_report(result: AuditResult, dataset: Dataset, folder: Path) -> Path:
    """Write the three files of the report, whole or not at all; return the page. Raises `OutputError`."""
    check_report_folder(folder)
    text = page(result, dataset).encode()
    try:
        # The file that marks a report gets its name first, so that what is left of a crash can be replaced.
        with contextlib.ExitStack() as files:
            opened = {name: files.enter_context(whole_file(folder / name)) for name in (PAGE, PARQUET, JSON)}
            opened[PAGE].write_bytes(text)
            write_parquet(opened[PARQUET], result.findings, result.to_dict())
            with open(opened[JSON], "wb") as file:
                file.writelines(json_lines(result.findings, result.to_dict()))
    except OSError as error:
        raise output_error(error, folder) from error
    return folder / PAGE
