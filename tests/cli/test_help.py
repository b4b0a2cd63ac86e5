"""What the command line says of itself: plain English, an example for each command, one meaning for each option."""

import re

import click
import pytest
from click.testing import CliRunner
from imgdata_cli.main import COMMANDS, SECTIONS, cli

SHELLS = ("bash", "zsh", "fish")
BANNED = (
    r"can be gone on with",
    r"lies there",
    r"\bis told\b",
    r"of it\.",
    r"\bheard\b",
    r"nobody wants",
    r"Be rank",
    r"goes on when",
    r"\[default: all\]",
    r"^Of\b",
    r"^Or\b",
    r"^That\b",
)
"""English of our own that nobody searches for, and help that begins in the middle of a sentence."""
METAVARS = {
    "DATASET",
    "[DATASET]",
    "SOURCE",
    "SOURCE...",
    "OUT",
    "RUN",
    "NETWORK",
    "NAME",
    "STEPS",
    "[PATTERN]",
    "IMAGE...|DATASET",
}


def help_of(name):
    result = CliRunner().invoke(
        cli, [name, "--help"] if name else ["--help"], env={"COLUMNS": "80"}, prog_name="imgdata"
    )
    assert result.exit_code == 0, result.output
    return result.output


def commands():
    context = click.Context(cli, info_name="imgdata")
    return {name: cli.get_command(context, name) for name in COMMANDS}


def options(command):
    return [one for one in command.params if isinstance(one, click.Option)]


def test_commands_are_grouped_by_task():
    shown = help_of("")
    places = [shown.index(f"\n{title}:\n") for title in SECTIONS]
    assert places == sorted(places)
    for title, names in SECTIONS.items():
        section = shown.split(f"\n{title}:\n", 1)[1].split("\n\n", 1)[0]
        assert [line.split()[0] for line in section.splitlines()] == list(names), "a line for each command"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_its_own_help_says_in_short(name):
    assert commands()[name].get_short_help_str(limit=200) == COMMANDS[name]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_help_is_80_columns_wide_and_has_an_example(name):
    shown = help_of(name)
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(rf"^ +.*imgdata {name}" if name else r"^ +imgdata \w+", shown, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_in_plain_english_what_it_does(name):
    for option in options(commands()[name]):
        assert option.help, f"{name} {option.opts[-1]} has no help"
        assert not [banned for banned in BANNED if re.search(banned, option.help)], f"{option.opts[-1]}: {option.help}"
    assert not [banned for banned in BANNED if re.search(banned, commands()[name].help)]


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_have_the_same_names_everywhere(name):
    shown = help_of(name)
    for one in commands()[name].params:
        if isinstance(one, click.Argument) and name != "completion":
            metavar = one.metavar or one.name.upper()
            assert metavar in METAVARS, f"{name}: {metavar}"
            assert metavar.strip("[].") in shown


def test_an_option_of_several_commands_has_one_meaning():
    for flag in ("--quiet",):
        found = [option for name in COMMANDS for option in options(commands()[name]) if flag in option.opts]
        texts = {option.help for option in found}
        assert len(texts) == 1, f"{flag}: {texts}"


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_the_script_of_the_shell(shell):
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="imgdata")
    assert result.exit_code == 0
    assert f"_IMGDATA_COMPLETE={shell}_complete" in result.stdout
    assert result.stderr == ""


def test_a_shell_gets_the_options_that_begin_so():
    asked = {"_IMGDATA_COMPLETE": "bash_complete", "COMP_WORDS": "imgdata verify --de", "COMP_CWORD": "2"}
    result = CliRunner().invoke(cli, [], prog_name="imgdata", env=asked)
    assert result.stdout.split() == ["plain,--deep"]
