"""The commands. `main` reads the command line; each group of commands has a module."""

from refresher.cli.main import app, main

__all__ = ["app", "main"]
