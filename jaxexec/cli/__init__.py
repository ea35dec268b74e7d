"""The command line: reads, calls, writes. Nothing heavy is imported before a command runs."""

from jaxexec.cli.app import main

__all__ = ["main"]
