"""docs/commands.md, docs/settings.md and the files that name the settings, held to the code."""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin

import pytest
import typer.main

from refresher import settings
from refresher.cli.commands import app
from refresher.setting_values import Plain
from refresher.settings import PREFIX

ROOT = Path(__file__).parents[2]
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| .+ \|$", re.MULTILINE)
KINDS = {int: "whole number", float: "number"}

#: Of each setting, by its name.
DEFAULTS = {field.name: field.default for field in fields(settings.Settings)}


def rows(text):
    """Of each row of a table: the name, and what it takes and its default, as the page says."""
    return {name: (takes, default.strip("`")) for name, takes, default in ROW.findall(text)}


def numbers(kind, at_least=None, more_than=None, at_most=None):
    """A number and its bounds, in the words of the pages."""
    words = KINDS[kind]
    if more_than is not None:
        words += f", more than {more_than:,}"
    elif at_least is not None:
        words += f", {at_least:,}" + (" or more" if at_most is None else "")
    if at_most is not None:
        words += f"{', to' if more_than is not None else ' to'} {at_most:,}"
    return words


# --- Commands ---


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def option(parameter):
    """An option or an argument, as the page should say it."""
    kind = parameter.type_descriptor.annotation
    kinds = [each for each in get_args(kind) or [kind] if each is not NoneType]
    if kinds == [bool]:
        return ("nothing", "on" if parameter.default else "off")
    if kinds[0] in KINDS:
        takes = numbers(kinds[0], at_least=parameter.min, at_most=parameter.max)
    else:
        takes = "file" if kinds == [Path] else "text"
    if parameter.required:
        return (takes, "required")
    return (takes, "none" if parameter.default is None else str(parameter.default))


def label(parameter):
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    return parameter.opts[0]


def test_commands_and_options_are_those_of_the_code():
    """Each command has its section, each option its row, with what it takes and its default."""
    sections = re.split(r"^## (.+)$", COMMANDS, flags=re.MULTILINE)[1:]
    listed = {name: rows(text) for name, text in zip(sections[::2], sections[1::2], strict=True)}
    assert listed == {
        name: {label(parameter): option(parameter) for parameter in command.params}
        for name, command in commands(typer.main.get_command(app))
    }


# --- Settings ---


def taken(kind):
    """What a setting takes, where its kind says it; None for text, which the page explains."""
    if not isinstance(kind, Plain):
        return None
    if kind.type is bool:
        return "`true`, `false`"
    if get_origin(kind.type) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind.type))
    number, bounds = get_args(kind.type)
    return numbers(number, bounds.ge, bounds.gt, bounds.le)


def default_of(name):
    default = DEFAULTS[name]
    if default is MISSING:
        return "required"
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None else str(default)


def test_settings_are_those_of_the_code():
    """Each setting has its row, in the order of the code, with what it takes and its default."""
    listed = rows(SETTINGS)
    assert list(listed) == [PREFIX + name.upper() for name in settings.KINDS]
    for name, kind in settings.KINDS.items():
        takes, default = listed[PREFIX + name.upper()]
        assert takes == (taken(kind) or takes), name
        assert default == default_of(name), name


def test_the_example_names_every_setting_with_its_default():
    """.env.example: all commented out, what has no default is empty."""
    lines = re.findall(rf"^#({PREFIX}\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert [name for name, _ in lines] == [PREFIX + name.upper() for name in settings.KINDS]
    for name, (_, value) in zip(settings.KINDS, lines, strict=True):
        if DEFAULTS[name] is not MISSING:
            assert value == ("" if DEFAULTS[name] is None else default_of(name))


def test_the_containers_pass_every_setting_on():
    """docker-compose.yml: all but the address of the operations endpoint, which it sets itself."""
    text = (ROOT / "docker-compose.yml").read_text()
    passed = re.findall(rf"^  ({PREFIX}\w+):$", text, re.MULTILINE)
    names = [PREFIX + name.upper() for name in settings.KINDS]
    assert passed == [name for name in names if name != "REFRESHER_HTTP_LISTEN"]
    assert re.search(r"^ +REFRESHER_HTTP_LISTEN: \S+$", text, re.MULTILINE)


# --- All pages ---


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    """Files and headings that a page links to are there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(file):
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_the_index_names_every_page():
    """docs/README.md: each page once, decisions as a folder."""
    index = (ROOT / "docs" / "README.md").read_text()
    linked = re.findall(r"\]\(((?:integrate/)?[\w-]+\.md)\)", index)
    folder = ROOT / "docs"
    found = (*folder.glob("*.md"), *folder.glob("integrate/*.md"))
    pages = [str(page.relative_to(folder)) for page in found if page.name != "README.md"]
    assert sorted(linked) == sorted(pages)
    assert "](decisions/)" in index
