"""`imgdata`: finds the command, and turns what goes wrong into one message and an exit code."""

import importlib
import signal
import sys
from typing import Any, NoReturn

import click

COMMANDS = {
    "shard": "Turn an image dataset into verified, indexed WebDataset shards.",
    "index": "Index WebDataset shards that were made elsewhere.",
    "verify": "Check shards and sidecars, down to every byte.",
    "inspect": "Show splits, classes, sizes and single samples.",
    "export": "Write a dataset back as class folders.",
    "train": "Train a network on a dataset.",
    "evaluate": "Measure how good a trained network is on a split.",
    "predict": "Say what a trained network sees in images.",
    "features": "Write the feature vector of each image to a file.",
    "export-model": "Write a trained network as an ONNX file.",
    "trace": "Follow real samples through every stage.",
    "bench": "Measure images/s of a loader, beside others.",
    "doctor": "Find what holds loading back on this machine.",
    "parity": "Compare pixels with torchvision's, on your own images.",
    "models": "List networks by name, with their sizes.",
}
"""Every command, in the order of use; each lives in the module of its name, with `_` for `-`."""

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class _Commands(click.Group):
    """Imports a command only when it is called: `imgdata --help` loads none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".commands.{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        import imgdata

        click.echo(f"imgdata {imgdata.__version__}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Image datasets into verified, indexed WebDataset shards."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of the console script. Exit codes: 0 done, 1 a fault, 2 wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    from imgdata.errors import ImgdataError, OptionError

    try:
        result = cli.main(arguments, prog_name="imgdata", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ImgdataError as error:
        click.echo(f"imgdata: {error}", err=True)
        return EXIT_USAGE if isinstance(error, OptionError) else EXIT_FAULT
    except (KeyboardInterrupt, click.Abort):
        click.echo("imgdata: interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (`head`, a pager) has seen enough.
        sys.stderr.close()
        return EXIT_FAULT
    return result if isinstance(result, int) else 0


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
