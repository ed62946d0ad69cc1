"""The console script, and the only place that decides on exit codes."""

import gc
import os
import sys
from collections.abc import Sequence
from typing import Final

from refresher.cli import daemon
from refresher.cli.output import Incomplete, Misuse, say

EXIT_INCOMPLETE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
#: As of a program that the signal ends.
EXIT_BROKEN_PIPE: Final = 141


def main() -> None:
    """The console script."""
    # Modules stay loaded, and the objects of a chunk have no cycles. With the default thresholds
    # the garbage collector took a tenth of the start and a sixth of the daemon's CPU time.
    gc.set_threshold(20_000, 20, 50)
    try:
        code = _call()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads has seen enough. Nothing is left to be written at the end of the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    except Exception as error:
        lines, code = _explained(error)
        for line in lines:
            say(line)
    sys.exit(code)


def _call() -> int | None:
    """Run the command of the command line; its exit code."""
    match sys.argv[1:]:
        # They have no options. What reads options would stay loaded as long as they run, and take
        # a sixth of a daemon's memory.
        case ["run"]:
            daemon.run()
        case ["once"]:
            daemon.once()
        case _:
            from refresher.cli import commands

            return commands.call()
    return None


def _explained(error: Exception) -> tuple[Sequence[str], int]:
    """What to print, and the exit code."""
    if isinstance(error, Incomplete):
        return error.args, EXIT_INCOMPLETE
    if isinstance(error, Misuse):
        return error.args, EXIT_USAGE
    from refresher.cli.errors import complaints

    if lines := complaints(error):
        return lines, EXIT_USAGE
    # The text may quote a row of the database: `say` redacts it. A traceback is not printed.
    return [f"unexpected {type(error).__name__}: {error}"], EXIT_INCOMPLETE
