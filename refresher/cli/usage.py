"""What to say about a command line that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: Our words by the type of pydantic's error: its own speak of inputs and parsing.
EXPECTED: Final = {
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "greater_than": "more than {gt:.10g}",
    "greater_than_equal": "{ge:.10g} or more",
    "less_than_equal": "{le:.10g} or less",
    "bool_parsing": "true or false",
    "literal_error": "{expected}",
    "string_unicode": "text in UTF-8",
}


def complaint(error: typer.TyperException) -> str:
    """One line. For a bad value: the option and what was expected; else what helps on."""
    if isinstance(error, typer.BadParameter) and error.param is not None and error.__cause__:
        from pydantic import ValidationError

        if isinstance(error.__cause__, ValidationError):
            found = error.__cause__.errors()[0]
            return f"{error.param.opts[0]}: {_expected(found)}, not {found['input']!r}"
    text = _told(error)
    context: typer.Context | None = getattr(error, "ctx", None)
    see = f"see {context.command_path if context else 'refresher'} --help"
    return f"{text} S{see[1:]}" if text.endswith("?") else f"{text}; {see}"


def _expected(item: ErrorDetails) -> str:
    if words := EXPECTED.get(item["type"]):
        return f"expected {words.format(**item.get('ctx', {}))}"
    return item["msg"].removeprefix("Value error, ")


def _told(error: typer.TyperException) -> str:
    if possible := getattr(error, "possibilities", None):
        return f"{error.message}. Did you mean {' or '.join(sorted(possible))}?"
    return error.format_message().strip().rstrip(".")
