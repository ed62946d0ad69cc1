"""The SQL of this package: one statement a file in `sql/`, its parameters named.

`:name` is a parameter. `{{ name }}` puts in a constant, or the file of that name in
`sql/fragments/`; `{{ name key="SQL" }}` fills in `{{ key }}` there. Comments are not sent.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from refresher.postgres.constants import CONSTANTS

# Text in which a colon begins no parameter. Each alternative begins with another character, so that
# the expression is quick; what must stand before that character is a look-behind.
_OPAQUE: Final = r"""
    '(?<=\b[eE]')(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | \$(?<![\w$]\$)(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    | -(?P<line>-[^\n]*) | /(?P<block>\*.*?\*/)
"""
_OPAQUES: Final = re.compile(_OPAQUE, re.VERBOSE | re.DOTALL)
# A colon after an operand or a bracket is that of a slice, as in `ids[1:n]`, or of a cast.
_PARAMETERS: Final = re.compile(
    rf"{_OPAQUE} | :(?<![\w\])\[:]:)(?P<name>[a-z_]\w*)", re.VERBOSE | re.DOTALL
)
_INCLUDES: Final = re.compile(r'\{\{\s*(?P<name>\w+)(?P<arguments>(?:\s+\w+="[^"]*")*)\s*\}\}')
_ARGUMENTS: Final = re.compile(r'(\w+)="([^"]*)"')


#: A statement and its values, as asyncpg takes them.
Bound = tuple[str, *tuple[object, ...]]


class StatementError(Exception):
    """A file in `sql/` cannot be used as it is: the message names it."""


class Statement:
    """One statement. Call it with a value for each of its parameters, by name.

    It returns arguments for asyncpg's methods: `await connection.fetch(*CLAIM(...))`. Raises
    TypeError if a value is missing or the statement has no such parameter.
    """

    __slots__ = ("_names", "_order", "text")

    def __init__(self, source: str) -> None:
        """`source` has `:name` parameters, and all its includes are in place."""
        numbers: dict[str, int] = {}

        def numbered(found: re.Match[str]) -> str:
            name = found["name"]
            return f"${numbers.setdefault(name, len(numbers) + 1)}" if name else found[0]

        #: What is sent: parameters are numbered in the order in which they appear.
        self.text: Final = _PARAMETERS.sub(numbered, source)
        self._order: Final = tuple(numbers)
        self._names: Final = frozenset(numbers)

    def __call__(self, **values: object) -> Bound:
        if values.keys() != self._names:
            raise TypeError(
                f"parameters missing: {sorted(self._names - values.keys())}, "
                f"unknown: {sorted(values.keys() - self._names)}"
            )
        return (self.text, *map(values.__getitem__, self._order))


def statement(name: str) -> Statement:
    """The statement in `sql/<name>.sql`. Raises `StatementError`."""
    return Statement(source(name))


def source(name: str) -> str:
    """Its text with all includes in place and parameters by name. Raises `StatementError`."""
    return _included(_read(name), {}, where=name).strip()


def _included(text: str, given: Mapping[str, str], *, where: str) -> str:
    """The text with constants and fragments in place; `given` are the arguments of a fragment."""
    used = set()

    def put_in(found: re.Match[str]) -> str:
        name = found["name"]
        arguments = {
            key: _INCLUDES.sub(put_in, value)
            for key, value in _ARGUMENTS.findall(found["arguments"])
        }
        if name in given:
            used.add(name)
            return given[name]
        if name in CONSTANTS:
            return str(CONSTANTS[name])
        fragment = f"fragments/{name}"
        return _included(_read(fragment), arguments, where=fragment).strip()

    included = _INCLUDES.sub(put_in, text)
    if unused := given.keys() - used:
        raise StatementError(f"sql/{where}.sql: does not use {sorted(unused)}")
    if "{{" in included:
        raise StatementError(f'sql/{where}.sql: expected {{{{ name key="SQL" }}}}')
    return included


@cache
def _read(name: str) -> str:
    """A file without its comments and empty lines."""
    try:
        text = _ROOT.joinpath(f"{name}.sql").read_text(encoding="utf-8")
    except OSError as error:
        raise StatementError(f"sql/{name}.sql: {error.strerror or error}") from error
    bare = _OPAQUES.sub(_uncommented, text)
    return "\n".join(line.rstrip() for line in bare.splitlines() if line.strip())


def _uncommented(found: re.Match[str]) -> str:
    return "" if found.lastgroup in {"line", "block"} else found[0]


# Not a path, as a package in a zip file has none.
_ROOT: Final = files(__package__) / "sql"
