"""The commands, the file of settings, and what each kind of failure becomes: a message and an exit code."""

import contextlib
import os
import signal
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import cyclopts
import cyclopts.config

from jaxexec._version import __version__
from jaxexec.presentation.cells import visible
from jaxexec.storage import FileError, read_text
from jaxexec.tape.errors import TapeWarning

OK, FAILURE, WRONG_USE, SOME_ROWS_FAILED = 0, 1, 2, 3

_COMMANDS = {
    "demo": "Five minutes: a synthetic day, or yours, from trades and quotes to schedules and a report.",
    "clean": "Trades and quotes to signed trades, with a ledger of every row dropped.",
    "impact": "Signed trades to impact estimates for each stock.",
    "measures": "Signed trades to spreads, Kyle's λ, lasting impact and volatility for each stock.",
    "calibrate": "Trades, executions, meta-orders, flow or observed schedules to market files and a report.",
    "solve": "Parent orders to optimal schedules, each with its certificate.",
    "frontier": "Expected cost against risk, for one order.",
    "simulate": "The distribution of what one order costs, by its best schedule and by even trading.",
    "equilibrium": "How a market maker who learns prices what an insider knows.",
    "analyse": "Orders and their fills to what they cost, and why.",
    "report": "Folders of results to one self-contained HTML page.",
    "doctor": "Devices, precision, caches and versions, and what to do about what is wrong.",
}
_MAX_CONFIG_BYTES = 1 << 20


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The words after the program's name; those of the process where None.

    Returns:
        The exit code: 0 all well, 1 a fault of the program, 2 wrong use or unusable input, 3 some rows
        failed, 130 or 143 interrupted.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_a_character(stream)
    try:
        with _termination_raises(), warnings.catch_warnings():
            warnings.simplefilter("ignore", TapeWarning)  # what it says stands under the ledger
            return _dispatch(words)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except Terminated:
        return _say("terminated", 143)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (FileError, ValueError, cyclopts.CycloptsError) as error:
        if os.environ.get("JAXEXEC_DEBUG"):
            raise
        return _say(f"error: {error}", WRONG_USE)
    except ModuleNotFoundError as error:
        remedy = "install what the command line needs: pip install 'jaxexec[app]'"
        return _say(f"error: the package {error.name!r} is missing; {remedy}", WRONG_USE)


def _dispatch(words: list[str]) -> int:
    """Parse the words with the settings of `--config` below them, and run the command."""
    app = _app()
    app.config = _settings(words)
    result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    return result if isinstance(result, int) else OK


def _app() -> cyclopts.App:
    """The commands by name; a command's module is imported when it is called or its help is asked for."""
    app = cyclopts.App(
        name="jaxexec",
        version=__version__,
        help="Optimal order execution in JAX: from trades and quotes to certified, differentiable schedules.",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for name, summary in _COMMANDS.items():
        app.command(f"jaxexec.cli.{name}:{name}", name=name, help=summary)
    return app


def _settings(words: list[str]) -> tuple[cyclopts.config.Dict, ...]:
    """Settings from the file named by `--config`; the words of the command line win over them.

    A table named after a command holds its options; keys above the tables hold for whatever command runs.
    """
    path, command = _config_path(words), next((word for word in words if word in _COMMANDS), None)
    if path is None or command is None:
        return ()
    try:
        document = tomllib.loads(read_text(path, _MAX_CONFIG_BYTES))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileError(path, f"not TOML ({error})", "Correct the file.") from error
    tables = {name: value for name, value in document.items() if isinstance(value, dict)}
    unknown = sorted(set(tables) - set(_COMMANDS))
    if unknown:
        raise FileError(path, f"unknown table [{unknown[0]}]", f"Tables are {', '.join(_COMMANDS)}.")
    common = {name: value for name, value in document.items() if name not in tables}
    chosen: dict[str, Any] = {**common, **tables.get(command, {})}
    if "config" in chosen:
        raise FileError(path, "a file of settings cannot name another", "Remove the key 'config'.")
    return (cyclopts.config.Dict({command: chosen}, source=str(path)),)


def _config_path(words: list[str]) -> str | None:
    """The value of `--config`, before the other options are known."""
    for index, word in enumerate(words):
        if word == "--":
            return None
        if word == "--config" and index + 1 < len(words):
            return words[index + 1]
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


@contextlib.contextmanager
def _termination_raises() -> Iterator[None]:
    """SIGTERM unwinds the stack, so that temporary files go and locks are freed."""

    def terminate(*_: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _never_fail_on_a_character(stream: TextIO) -> None:
    """Characters that a terminal's encoding lacks are spelled out."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _say(message: str, code: int) -> int:
    """A message on stderr, nothing in it that acts on a terminal, and the exit code."""
    lines = (visible(line) for line in message.splitlines())
    print("\n".join(lines), file=sys.stderr)
    return code
