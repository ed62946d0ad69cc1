"""A progress bar with rate and time left, on standard error, only on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def is_shown() -> bool:
    """Whether there is a terminal to show it on."""
    return sys.stderr.isatty()


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """Call what it yields with what is done and what there is in all, where that is known."""
    if not is_shown():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")

    columns = (
        "{task.description}", BarColumn(), MofNCompleteColumn(), Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(escape(what), total=total)
        yield lambda done, of: bar.update(task, completed=done, total=total if of is None else of)
