"""The command in each help is one that the program takes."""

import re
import shlex

import pytest
import typer.main

from refresher.cli.commands import app
from tests.unit.test_reference import commands

COMMAND = typer.main.get_command(app)


def example_of(command):
    """The command line in its help."""
    return re.search(r"Example: (refresher .+)", command.help)


@pytest.mark.parametrize(("name", "command"), list(commands(COMMAND)), ids=str)
def test_the_help_of_each_command_has_an_example(name, command):
    """Of that very command, on a line of its own, and the program takes it."""
    example = example_of(command)
    assert example, f"expected 'Example: refresher {name} …' in the docstring"
    assert f"{example[1]} ".startswith(f"refresher {name} ")
    taken(example[1])


def taken(line):
    """Raises what an operator would be told of who types this."""
    group, words = COMMAND, shlex.split(line)[1:]
    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]
    group.make_context(group.name, words)
