"""What to say about a command line that cannot be read."""

from __future__ import annotations

import typer


def complaint(error: typer.TyperException) -> str:
    """One line. For a bad value: the option and what was expected; else what helps on."""
    if isinstance(error, typer.BadParameter) and error.param is not None and error.__cause__:
        from pydantic import ValidationError

        from refresher.settings import expected

        if isinstance(error.__cause__, ValidationError):
            found = error.__cause__.errors()[0]
            return f"{error.param.opts[0]}: {expected(found)}, not {found['input']!r}"
    text = _told(error)
    context: typer.Context | None = getattr(error, "ctx", None)
    see = f"see {context.command_path if context else 'refresher'} --help"
    return f"{text} S{see[1:]}" if text.endswith("?") else f"{text}; {see}"


def _told(error: typer.TyperException) -> str:
    if possible := getattr(error, "possibilities", None):
        return f"{error.message}. Did you mean {' or '.join(sorted(possible))}?"
    return error.format_message().strip().rstrip(".")
