"""A run's folder -> the paths of its files, which one process at a time writes."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdata.errors import OptionError, OutputError
from imgdata.storage.atomic import output_error, write_atomic
from imgdata.storage.locks import LockHeldError, locked
from imgdata.storage.reading import read_json

CONFIG_VERSION = 1
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of a run's files."""

    path: Path

    @property
    def config(self) -> Path:
        """File of settings, classes, versions; written first."""
        return self.path / "config.json"

    @property
    def last(self) -> Path:
        """File of all that is needed to resume."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """File of the weights of the best epoch, for predictions."""
        return self.path / "best.pt"

    @property
    def metrics(self) -> Path:
        """Table with a line for each epoch."""
        return self.path / "metrics.csv"

    @property
    def steps(self) -> Path:
        """Table with a line for each step."""
        return self.path / "steps.csv"

    @property
    def curves(self) -> Path:
        """Picture of loss and accuracy by epoch."""
        return self.path / "curves.png"

    @property
    def confusion(self) -> Path:
        """Picture of the best weights' confusion matrix."""
        return self.path / "confusion.png"

    @property
    def classes(self) -> Path:
        """Table of each class: its accuracy, and what it was taken for."""
        return self.path / "classes.csv"

    @property
    def summary(self) -> Path:
        """File of the figures of the whole run; written last."""
        return self.path / "summary.json"

    @property
    def throughput(self) -> Path:
        """File of the figures of timed steps, which need no run."""
        return self.path / "throughput.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's events."""
        return self.path / "tensorboard"

    def check(self, *, overwrite: bool = False) -> None:
        """Raise `OutputError` where a new run can't be written: over another run, or into a folder with other files."""
        try:
            has_run, is_foreign = self.config.exists(), self.path.exists() and self._foreign()
        except OSError as error:
            raise output_error(error, self.path) from error
        if has_run and not overwrite:
            raise OutputError(
                f"{self.path}: already contains a run; resume it (--resume), replace it (--overwrite), or choose "
                "another folder"
            )
        if is_foreign and not has_run:
            raise OutputError(f"{self.path}: must be a new or empty folder, got something else; choose another folder")

    @contextlib.contextmanager
    def held(self, *, new: bool, overwrite: bool = False) -> Iterator[None]:
        """Hold the folder for this process alone; clear what a killed process left there.

        The folder of a `new` run is made and emptied. Raises `OutputError`, as `check` and where another process
        writes the run.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path / _LOCK, remove=True))
            except LockHeldError:
                raise OutputError(
                    f"{self.path}: another process is writing this run; wait until it ends, or end it"
                ) from None
            except OSError as error:
                raise output_error(error, self.path) from error
            if new:
                self.check(overwrite=overwrite)
            self._clear(everything=new)
            yield

    def read_config(self) -> dict[str, Any]:
        """Return the contents of `config.json`. Raises `OptionError`."""
        return read_config(self.path)

    def write_config(self, content: dict[str, Any]) -> None:
        """Write `config.json`."""
        write_atomic(self.config, _json({"version": CONFIG_VERSION, **content}))

    def write_summary(self, content: dict[str, Any]) -> None:
        """Write `summary.json`."""
        write_atomic(self.summary, _json(content))

    def write_throughput(self, content: dict[str, Any]) -> None:
        """Write `throughput.json`, and make the folder where it is missing."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error, self.path) from error
        write_atomic(self.throughput, _json(content))

    def _foreign(self) -> bool:
        """Return whether the path has something that is no run's."""
        return not self.path.is_dir() or any(
            path != self.throughput and path.name != _LOCK and not _is_left_over(path) for path in self.path.iterdir()
        )

    def _clear(self, *, everything: bool) -> None:
        kept = {_LOCK} if self.config.exists() else {_LOCK, self.throughput.name}
        try:
            for path in list(self.path.iterdir()):
                if path.name in kept or not (everything or _is_left_over(path)):
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            raise output_error(error, self.path) from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the contents of a run's `config.json`; `path` is the run's folder or the file. Raises `OptionError`."""
    if path.suffix == ".json":
        return _read(path, f"{path}: must be the config.json of a run")
    return _read(RunFolder(path).config, f"{path}: must be the folder of a run")


def _is_left_over(path: Path) -> bool:
    """Return whether it is a file that a killed process had not finished, see `whole_file`."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
    except OSError as error:
        raise OptionError(f"{what}, got none with {path.name} ({error.strerror or error})") from error
    except ValueError as error:
        raise OptionError(f"{path}: is damaged: {error}") from error
    if not isinstance(content, dict):
        raise OptionError(f"{path}: must be a JSON object, got {type(content).__name__}; it is damaged")
    if content.get("version") != CONFIG_VERSION:
        raise OptionError(f"{path}: version must be {CONFIG_VERSION}, got {content.get('version')!r}; upgrade imgdata")
    return content


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
