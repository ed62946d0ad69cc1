"""What the command lines share: what cannot be run, or not be kept, is refused before it starts."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from math import inf
from pathlib import Path


def parser_of(program: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def whole(least: int = 1, most: float = inf) -> Callable[[str], int]:
    """The type of an argument that is a whole number within these bounds."""

    def read(text: str) -> int:
        with suppress(ValueError):
            value = int(text)
            if least <= value <= most:
                return value
        raise argparse.ArgumentTypeError(f"expected a whole {_bounds(least, most)}, not {text!r}")

    return read


def real(least: float, most: float = inf) -> Callable[[str], float]:
    """The type of an argument that is a finite number within these bounds."""

    def read(text: str) -> float:
        with suppress(ValueError):
            value = float(text)
            if least <= value <= most and value < inf:
                return value
        raise argparse.ArgumentTypeError(f"expected a {_bounds(least, most)}, not {text!r}")

    return read


def reals(least: float, most: float = inf) -> Callable[[str], Sequence[float]]:
    """The type of an argument that is some such numbers with commas between them."""
    read = real(least, most)
    return lambda text: [read(part) for part in text.split(",")]


def settings(text: str) -> Mapping[str, str]:
    """Of PostgreSQL: NAME=VALUE, some with commas between them."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.isidentifier() and value.isalnum() for name, _, value in pairs):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE,..., not {text!r}")
    return {name: value for name, _, value in pairs}


def file(text: str) -> Path:
    """One that can be written: its folder is there."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, not {text!r}")
    return path


def folder(text: str) -> Path:
    """One that can be written into; it is made."""
    path = Path(text)
    with suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    raise argparse.ArgumentTypeError(f"expected a folder that can be written, not {text!r}")


def checkout(text: str) -> Path:
    """The folder of another build."""
    path = Path(text)
    if not (path / "refresher").is_dir():
        raise argparse.ArgumentTypeError(f"expected a checkout, not {text!r}")
    return path.resolve()


def picture(text: str) -> Path:
    """A file to draw into."""
    path = file(text)
    if path.suffix != ".png":
        raise argparse.ArgumentTypeError(f"expected FILE.png, not {text!r}")
    if not find_spec("matplotlib"):
        raise argparse.ArgumentTypeError("needs matplotlib, the extra 'plot'")
    return path


def _bounds(least: float, most: float) -> str:
    upper = f" to {most:,g}" if most < inf else " or more"
    return f"number, {least:,g}{upper}"
