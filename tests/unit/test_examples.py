"""The commands in help and docs are ones that the program takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from refresher.cli import app
from tests.unit.test_reference import commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = typer.main.get_command(app)
#: A placeholder of the docs, and what stands for it.
FILLED = {"N": "8", "FILE.csv": "file.csv", "…": ""}


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


def lines(page):
    """The commands in the blocks of a page, without what a shell does around them."""
    for block in FENCED.findall(page.read_text()):
        for line in re.sub(r"\\\n *", "", block).splitlines():
            if found := re.match(r"(?:\$ )?(refresher [^|>&;]+)", line.partition(" #")[0]):
                yield found[1].strip()


LINES = [(page.name, line) for page in PAGES for line in lines(page)]


def test_the_pages_have_commands():
    """Otherwise the next test says nothing."""
    assert len(LINES) >= 10


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda value: value[:60])
def test_a_command_of_the_docs_is_one_that_the_program_takes(page, line):
    """Its name, its options and their values."""
    taken(line)


def taken(line):
    """Raises what an operator would be told of who types this."""
    words = [FILLED.get(word, word) for word in shlex.split(line)[1:]]
    group, words = COMMAND, list(filter(None, words))
    while hasattr(group, "commands") and words and not words[0].startswith("-"):
        group = group.commands[words.pop(0)]
    if not {"--help", "--install-completion", "--version"} & set(words):
        group.make_context(group.name, words)
