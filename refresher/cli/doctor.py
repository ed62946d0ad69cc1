"""`doctor`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from refresher.cli.output import Incomplete, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from refresher.domain.checkup.checks import Check
    from refresher.domain.checkup.findings import Finding

    Findings = Sequence[tuple[Check[Any], Finding]]

#: By outcome: the mark, and its colour on a terminal.
MARKS: Final = {
    "ok": ("✓", "green"),
    "warning": ("‼", "yellow"),
    "problem": ("✗", "red"),
    "skipped": ("-", "bright_black"),
}


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask TikTok, too, without a token: it costs no quota.")
    ] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only say what is checked.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Looks for what is wrong, and says what to do about it. Exit 1 if covers are in danger.

    Example: refresher doctor --json
    """
    if list_only:
        _print_list(as_json=as_json)
        return
    findings = _examined(online=online)
    if as_json:
        _print_json(findings)
    else:
        _print_groups(findings)
    if any(finding.outcome == "problem" for _, finding in findings):
        raise Incomplete


def _examined(*, online: bool) -> Findings:
    import asyncio

    from refresher import doctor
    from refresher.domain.checkup.checks import judged
    from refresher.settings import SettingsError, read_settings

    try:
        settings = read_settings()
    except SettingsError as error:
        return list(judged(doctor.without_settings(str(error))))
    return list(judged(asyncio.run(doctor.examine(settings, online=online))))


def _print_list(*, as_json: bool) -> None:
    import json

    from refresher.domain.checkup.checks import CHECKS

    if as_json:
        print(json.dumps([{"id": each.id, "looks_at": each.looks_at} for each in CHECKS], indent=2))
        return
    width = max(len(each.id) for each in CHECKS)
    for each in CHECKS:
        print(f"{each.id:{width}}  {each.looks_at}")


def _print_json(findings: Findings) -> None:
    import json
    from dataclasses import asdict

    told = [
        {"id": check.id, **{name: one_line(text) for name, text in asdict(finding).items()}}
        for check, finding in findings
    ]
    print(json.dumps({"findings": told, "verdict": _verdict(findings)}, indent=2))


def _print_groups(findings: Findings) -> None:
    import io
    from itertools import groupby

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal knows the marks
    for group, of_group in groupby(findings, lambda each: each[0].group):
        print(group)
        for finding in _told(list(of_group)):
            _print_finding(finding)
        print()
    print(_verdict(findings))


def _told(findings: Findings) -> Iterator[Finding]:
    """Each finding; one for all that were skipped for the same reason."""
    from dataclasses import replace
    from itertools import groupby

    def skipped(each: tuple[Check[Any], Finding]) -> Finding | None:
        return each[1] if each[1].outcome == "skipped" else None

    for common, alike in groupby(findings, skipped):
        if common is None:
            yield from (finding for _, finding in alike)
        else:
            names = ", ".join(check.id.partition(".")[2] for check, _ in alike)
            yield replace(common, text=f"{names}: {common.text}")


def _print_finding(finding: Finding) -> None:
    """The remedy stands below, on a line of its own."""
    _print_wrapped(f"  {_mark(finding.outcome)} ", 4, finding.text)
    if finding.remedy:
        _print_wrapped("    → ", 6, finding.remedy)


def _print_wrapped(beginning: str, indent: int, text: str) -> None:
    """One line; on a terminal as many as its width asks for, with an indent."""
    line = one_line(text)
    if sys.stdout.isatty():
        line = _wrapped(line, indent)
    print(f"{beginning}{line}")


def _wrapped(line: str, indent: int) -> str:
    from shutil import get_terminal_size
    from textwrap import wrap

    width = max(1, get_terminal_size().columns - indent)
    # Names of settings, paths and statements are to be copied whole.
    lines = wrap(line, width, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)


def _mark(outcome: str) -> str:
    mark, colour = MARKS[outcome]
    return typer.style(mark, fg=colour) if sys.stdout.isatty() else mark


def _verdict(findings: Findings) -> str:
    from refresher.domain.checkup.checks import verdict

    return verdict(finding for _, finding in findings)
