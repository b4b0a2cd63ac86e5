"""`imgdata completion`: the script with which a shell completes commands, options and their values."""

import click

_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_IMGDATA_COMPLETE"
"""Environment variable that makes click complete the words of a shell, as click names it for `imgdata`."""


@click.command(short_help="Print the script that completes commands in your shell.")
@click.argument("shell", type=click.Choice(_SHELLS), metavar="|".join(_SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and file names in your shell.

    Add one line to the shell's start file, and open a new shell:

    \b
      bash  ~/.bashrc                    eval "$(imgdata completion bash)"
      zsh   ~/.zshrc                     eval "$(imgdata completion zsh)"
      fish  ~/.config/fish/config.fish   imgdata completion fish | source
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    script = kind(ctx.find_root().command, {}, "imgdata", _VARIABLE)
    # Not `source()`: that of bash starts the bash of this machine, to warn of old ones.
    click.echo(script.source_template % script.source_vars())
