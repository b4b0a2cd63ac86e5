"""`imgdata`: finds the command, and reports every error as one message and an exit code."""

import gc
import importlib
import io
import signal
import sys
import traceback
import warnings
from typing import Any, NoReturn

try:
    import click
except KeyboardInterrupt:
    # Before there is anything that could answer.
    sys.exit(130)

SECTIONS = {
    "Prepare a dataset": {
        "shard": "Turn an image dataset into verified, indexed shards.",
        "index": "Index WebDataset shards that were made elsewhere.",
        "save-view": "Save a choice of samples under a name.",
        "compact": "Rewrite a dataset as one version, without unused samples.",
        "export": "Write a dataset back as class folders.",
    },
    "Look and check": {
        "inspect": "Show splits, classes, sizes, views and pictures.",
        "view": "Look at samples in the browser, and review labels.",
        "verify": "Check shards and sidecars, down to every byte.",
        "trace": "Follow real samples through every stage.",
        "audit": "Find wrong labels, duplicates, leaks, poor pictures, bias.",
        "parity": "Compare pixels with torchvision's, on your own images.",
    },
    "Load and measure": {
        "bench": "Measure images/s of the loader, beside others.",
        "doctor": "Find what slows loading down on this machine.",
        "cache": "Show what the cache folder holds, and clear it.",
    },
    "Train": {
        "train": "Train a network on a dataset.",
        "models": "List networks by name, with their sizes.",
    },
    "Use a trained network": {
        "evaluate": "Measure how good a trained network is on a split.",
        "predict": "Classify images with a trained network.",
        "features": "Write the feature vector of each image to a file.",
        "export-model": "Write a trained network as an ONNX file.",
    },
    "The command line": {
        "completion": "Print the script that completes commands in your shell.",
    },
}
"""Every command by task, in the order of use; each is in the module of its name, with `_` for `-`."""
COMMANDS = {name: text for commands in SECTIONS.values() for name, text in commands.items()}

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


_METAVARS: dict[type, str] = {
    click.types.IntParamType: "N",
    click.IntRange: "N",
    click.types.FloatParamType: "X",
    click.FloatRange: "X",
    click.types.StringParamType: "TEXT",
    click.Path: "PATH",
}
"""Placeholder of an option's value in its help, by type, for options without a placeholder of their own."""


class _Commands(click.Group):
    """A group that imports a command only when that command is called: `imgdata --help` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".commands.{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.command
        for option in command.params:
            if isinstance(option, click.Option) and option.metavar is None and not option.is_flag:
                option.metavar = _METAVARS.get(type(option.type))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        from imgdata.extras import importing_torch

        with importing_torch("this command"):
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                # The texts of all sections begin in one column.
                formatter.write_dl([(f"{name:<{width}}", text) for name, text in commands.items()])


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        import imgdata

        click.echo(f"imgdata {imgdata.__version__}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.option(
    "--debug", is_flag=True, expose_value=False, callback=lambda *facts: _set_debug(*facts), help="Show tracebacks."
)
def cli() -> None:
    """Turn image datasets into verified, indexed WebDataset shards, and train networks from them.

    \b
      imgdata shard photos/ out/ --split train=0.9,val=0.1
      imgdata inspect out/
      imgdata train out/ --out runs/a
      imgdata predict runs/a cat.jpg

    `imgdata COMMAND --help` says what a command does, with examples.
    """  # noqa: D301 - click wants a real backspace


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the console script. Exit codes: 0 done, 1 a fault, 2 wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A collection after every 700 objects is a tenth of the start, while modules are imported that all stay.
    gc.set_threshold(10_000, 20, 20)
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    """Run the command and return the exit code: whatever ends it is one line, and the traceback only with `--debug`."""
    try:
        from imgdata.tables import printable

        show = warnings.formatwarning
        warnings.formatwarning = lambda *facts, **more: printable(show(*facts, **more))
        _refuse_urls(sys.argv[1:] if arguments is None else arguments)
        result = cli.main(arguments, prog_name="imgdata", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output (`head`, a pager) has seen enough.
        sys.stderr.close()
        return EXIT_FAULT
    except Exception as error:
        return _failed(error)
    except KeyboardInterrupt:
        click.echo("imgdata: interrupted", err=True)
        return EXIT_INTERRUPTED


def _failed(error: Exception) -> int:
    """Print what `error` means, and return the exit code. Errors that only a bug explains are raised again."""
    from imgdata.errors import ImgdataError, OptionError
    from imgdata.tables import printable

    if isinstance(error, click.Abort):
        click.echo("imgdata: interrupted", err=True)
        return EXIT_INTERRUPTED
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        click.echo(printable(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    if isinstance(error, ImgdataError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror or error}" if error.filename else error.strerror or str(error)
    elif isinstance(error, MemoryError):
        text = "the memory is used up; close other programs, or give fewer workers or smaller batches"
    elif isinstance(error, RecursionError):
        text = "folders or data are nested too deeply"
    else:
        raise error
    if _DEBUG.asked:
        click.echo(printable("".join(traceback.format_exception(error))), err=True, nl=False)
    elif not isinstance(error, ImgdataError):
        text += " (`imgdata --debug COMMAND ...` shows where)"
    click.echo(printable(f"imgdata: {text}"), err=True)
    return EXIT_USAGE if isinstance(error, OptionError) else EXIT_FAULT


class _Debug:
    """Whether the user asked for tracebacks."""

    asked = False


_DEBUG = _Debug()


def _set_debug(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    _DEBUG.asked = asked


def _refuse_urls(arguments: list[str]) -> None:
    """Raise `OptionError` for a path that is a URL; a dataset may be one, and what `predict` reads.

    Also where a dataset is written to.
    """
    from imgdata.storage.local_paths import local_path, url_scheme

    web = ("http", "https") if arguments[:1] == ["predict"] else ()
    if not any("://" in argument for argument in arguments):
        return
    allowed = _url_places(arguments)
    for place, argument in enumerate(arguments):
        if place in allowed:
            continue
        # `--out=s3://bucket/run` as well.
        text = argument.partition("=")[2] if argument.startswith("--") and "=" in argument else argument
        if "://" in text and url_scheme(text) not in (None, *web):
            local_path(text)


_MAY_BE_URLS = (("images",), ("dataset",), ("source", "out"))
"""Arguments that may be URLs: those of the first line of which a command has all."""


def _url_places(arguments: list[str]) -> set[int]:
    """Return where in the arguments a URL may be: the DATASET of a command, or SOURCE and OUT."""
    first = next((place for place, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    command = _Commands().get_command(click.Context(cli), arguments[first]) if first < len(arguments) else None
    names = [one.name for one in command.params if isinstance(one, click.Argument)] if command else []
    wanted = next((line for line in _MAY_BE_URLS if set(line) <= set(names)), ())
    if command is None:
        return set()
    valued = {
        text
        for one in command.params
        if isinstance(one, click.Option) and not (one.is_flag or one.count)
        for text in one.opts
    }
    places, skip = [], False
    for place, argument in enumerate(arguments[first + 1 :], first + 1):
        if skip or argument.startswith("-"):
            skip = not skip and argument in valued
        else:
            places.append(place)
    numbers = map(names.index, wanted)
    return {places[number] for number in numbers if number < len(places)}


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
