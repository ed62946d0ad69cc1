"""The commands. `main` is the console script; each group of commands has a module."""

from refresher.cli.main import main

__all__ = ["main"]
