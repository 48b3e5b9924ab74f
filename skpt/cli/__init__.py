"""The command line: ``python -m skpt <command>``, one command a file."""

from skpt.cli.command_line import main

__all__ = ["main"]
