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
        for mark, line in _lines(list(of_group)):
            print(f"  {mark} {line}")
        print()
    print(_verdict(findings))


def _lines(findings: Findings) -> Iterator[tuple[str, str]]:
    """A mark and a line for each finding; one for all that were skipped for the same reason."""
    from itertools import groupby

    def skipped_for(each: tuple[Check[Any], Finding]) -> str | None:
        return _line(each[1]) if each[1].outcome == "skipped" else None

    for why, alike in groupby(findings, skipped_for):
        if why is None:
            yield from ((_mark(finding.outcome), _line(finding)) for _, finding in alike)
        else:
            names = ", ".join(check.id.partition(".")[2] for check, _ in alike)
            yield _mark("skipped"), one_line(f"{names}: {why}")


def _line(finding: Finding) -> str:
    text = f"{finding.text} → {finding.remedy}" if finding.remedy else finding.text
    return one_line(text)


def _mark(outcome: str) -> str:
    mark, colour = MARKS[outcome]
    return typer.style(mark, fg=colour) if sys.stdout.isatty() else mark


def _verdict(findings: Findings) -> str:
    from refresher.domain.checkup.checks import verdict

    return verdict(finding for _, finding in findings)
