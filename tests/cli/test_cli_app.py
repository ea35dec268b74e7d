"""The frame: help that imports nothing heavy, settings, messages and exit codes."""

import json
import os
import signal
import subprocess
import sys

import pytest

import jaxexec.cli.doctor
from jaxexec import storage

HEAVY = ("jax", "polars", "pyarrow", "matplotlib", "jinja2", "numpy", "equinox")
COMMANDS = ("demo", "clean", "impact", "measures", "calibrate", "solve", "frontier", "report", "doctor")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom jaxexec.cli import main\n"
        "assert main(['--help']) == 0 and main(['doctor', '--help']) == 0 and main(['--version']) == 0\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"
    assert all(command in said.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_common_options(command, cli):
    said = cli(command, "--help")
    assert said.code == 0
    for option in ("--out", "--json", "--quiet", "--dry-run", "--precision", "--config"):
        assert option in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sovle"], "solve"),
        (["solve"], "--orders requires an argument"),
        (["doctor", "--bogus"], "--bogus"),
        (["doctor", "--precision", "float16"], "float32"),
        (["solve", "missing.csv"], "no such file"),
        (["solve", "missing.csv", "--steps", "0"], "steps must be between 1"),
        (["solve", "missing.csv", "--steps", "1" + "0" * 18], "steps must be between 1"),
        (["solve", "missing.csv", "--risk-aversion", "nan"], "risk_aversion must be finite"),
        (["solve", "missing.csv", "--session", "16:00-09:30"], "does not end after it begins"),
        (["solve", "missing.csv", "--timezone", "Mars/Olympus"], "America/New_York"),
        (["frontier", "0"], "shares must be finite and not 0"),
        (["frontier", "100", "--low", "1", "--high", "0.1"], "low and high"),
        (["frontier", "100", "--eta", "0.1"], "no volatility"),
        (["demo", "--trades", "x.csv"], "belong together"),
        (["report", "missing"], "no such file"),
        (["clean", "missing.csv", "missing2.csv"], "missing.csv"),
        (["impact", "."], "jaxexec clean"),
    ],
)
def test_wrong_use_is_a_message_and_exit_code_2(words, message, cli):
    said = cli(*words)
    assert said.code == 2
    assert message in said.err
    assert "Traceback" not in said.err and said.out == ""


def test_a_message_does_not_act_on_the_terminal(cli):
    said = cli("solve", "a\x1b[2Jb\u202e.csv")
    assert said.code == 2
    assert "\x1b" not in said.err and "\u202e" not in said.err and "\\x1b" in said.err


def test_the_process_exits_with_the_code():
    command = [sys.executable, "-m", "jaxexec.cli", "solve", "missing.csv"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: 'missing.csv': no such file")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_unwind_and_become_exit_codes(number, code, cli, monkeypatch, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    # A process started in the background ignores the interrupts of a terminal, and rightly.
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait(**_):
        with storage.output_folder(tmp_path / "out"):
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 5)

    monkeypatch.setattr(jaxexec.cli.doctor, "doctor", wait)
    try:
        assert cli("doctor").code == code
    finally:
        signal.signal(signal.SIGINT, interrupted)
    assert not (tmp_path / "out").exists(), "neither a lock nor an empty folder"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bogus = 1", "bogus"),
        ("[doctor]\nbogus = 1", "bogus"),
        ("[sovle]\nsteps = 1", "unknown table [sovle]"),
        ("precision = 'float16'", "float16"),
        ("config = 'other.toml'", "cannot name another"),
        ("a = ", "not TOML"),
        ("quiet = true\nquiet = true", "not TOML"),
        ("#" * (1 << 20) + "x", "larger than"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_a_bad_file_of_settings_is_refused(text, message, cli, tmp_path):
    (tmp_path / "c.toml").write_text(text)
    said = cli("doctor", "--config", "c.toml")
    assert said.code == 2 and message in said.err and "Traceback" not in said.err


def test_settings_hold_below_the_command_line(cli, tmp_path):
    (tmp_path / "c.toml").write_text("json = true\n[frontier]\npoints = 7\nsteps = 9\n[solve]\nsteps = 3\n")
    said = cli("frontier", "100", "--dry-run", "--config=c.toml", "--points", "5")
    assert (json.loads(said.out)["points"], json.loads(said.out)["steps"]) == (5, 9)


def test_doctor_says_what_is_here(cli, tmp_path):
    said = cli("doctor", "--json")
    checks = {check["what"]: check for check in json.loads(said.out)["checks"]}
    assert said.code == 0 and checks["precision"]["found"] == "float64"
    assert {"python", "jax", "devices", "compilation cache"} <= checks.keys()
    assert cli("doctor", "--quiet").out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_cache_is_said_and_done_without(cli, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = cli("doctor")
    assert said.code == 0 and said.err.count("no compilation cache") == 1 and "XDG_CACHE_HOME" in said.out


def test_a_missing_package_names_the_remedy(cli, monkeypatch):
    def missing(**_):
        raise ModuleNotFoundError("No module named 'polars'", name="polars")

    monkeypatch.setattr(jaxexec.cli.doctor, "doctor", missing)
    said = cli("doctor")
    assert said.code == 2 and "pip install 'jaxexec[app]'" in said.err


def test_a_fault_of_our_own_is_not_hidden(cli, monkeypatch):
    def fault(**_):
        raise KeyError("a bug")

    monkeypatch.setattr(jaxexec.cli.doctor, "doctor", fault)
    with pytest.raises(KeyError):
        cli("doctor")
