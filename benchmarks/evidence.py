"""The README's evidence table and the documentation's tables, from the saved rows: no figure is typed.

`python -m benchmarks evidence` writes them, `--check` fails where one is out of step with the rows.
"""

import sys
from pathlib import Path

from benchmarks import coverage, estimator_choice, harness, published_errors, sign_rules, tape_bias

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = ROOT / "docs" / "generated"
NOTICE = "<!-- Written by `python -m benchmarks evidence`; change that, not this. -->"
BEGIN, END = "<!-- evidence:begin -->", "<!-- evidence:end -->"
HEAD = "| what | jaxexec | error | peer | | error | faster |\n|---|--:|--:|---|--:|--:|--:|"


SPEED = ("schedules", "mixed", "continuum", "baskets", "almgren_chriss", "frontier", "tape_stage")
SPEED += ("lee_ready", "impact", "calibration")
SLOPES = ("gradients", "sensitivities")
LIMITS = ("day", "simulation", "kyle", "start_up", "growth", "reliability")


def table(folder: Path = harness.RESULTS) -> str:
    """The tables in Markdown, one for each device, the CPU first; one line a row of the benchmarks."""
    rows = {name: harness.load(name, folder) for name in (*SPEED, *SLOPES, *LIMITS)}
    devices = dict.fromkeys(r.device for found in rows.values() for r in found)
    if not devices:
        return f"{HEAD}\n\nNo rows yet: run `python -m benchmarks all`."
    tables = [_of_device(device, rows) for device in sorted(devices, key=lambda d: (not d.startswith("cpu"), d))]
    return "\n\n".join([*tables, MEANING])


def _of_device(device: str, rows: dict[str, list[harness.Row]]) -> str:
    own = {name: [r for r in found if r.device == device] for name, found in rows.items()}
    lines = [_speed(r) for name in SPEED for r in own[name]]
    lines += [_gradient(r) for name in SLOPES for r in own[name]]
    lines += [_limit(r) for name in LIMITS for r in own[name]]
    in_turn = sorted((r for found in own.values() for r in found), key=lambda r: r.created)
    last, versions = in_turn[-1], {k: v for r in in_turn for k, v in r.versions.items()}
    took_part = ", ".join(f"{k} {v}" for k, v in sorted(versions.items()) if k not in ("jaxexec", "jaxlib"))
    where = "On a CPU" if device.startswith("cpu") else "On a GPU"
    return "\n".join([f"**{where}**, {device}; last run {last.created[:10]} with {took_part}:", "", HEAD, *lines])


def main(*, check: bool = False) -> int:
    """Write the tables where they belong, or say whether they are there."""
    made = table()
    texts = {
        README: replaced(README.read_text(encoding="utf-8"), made),
        PAGES / "evidence.md": f"{NOTICE}\n{made}\n",
        PAGES / "sign_rules.md": f"{NOTICE}\n{sign_rules.page(harness.load('sign_rules'))}",
        PAGES / "tape_bias.md": f"{NOTICE}\n{tape_bias.page(harness.load('tape_bias'))}",
    }
    texts[PAGES / "published_errors.md"] = f"{NOTICE}\n{published_errors.page(harness.load('published_errors'))}"
    texts |= {
        PAGES / f"{name}.md": f"{NOTICE}\n{text}" for name, text in coverage.page(harness.load("coverage")).items()
    }
    choices = estimator_choice.page(harness.load("estimator_choice"))
    texts |= {PAGES / f"choice_{name}.md": f"{NOTICE}\n{text}" for name, text in choices.items()}
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.name} is out of step: run python -m benchmarks evidence", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    return 1 if check and stale else 0


def replaced(text: str, made: str) -> str:
    """`text` with what stands between the two markers replaced."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"README.md lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


MEANING = (
    "Times are for one order, one trade, one fit or one equilibrium, of Monte Carlo for a step of a path, of a "
    "frontier for all of it, compiling apart. On a CPU: processor time on both sides, by the clock for gradients "
    "and for what starts up. On a GPU: by the clock, the peer on one core of its host. Each line was measured in "
    "one process. Errors: of a power-law schedule, largest deviation of the inventory from an 80-bit solution, over"
    " the order; of a mixed one, relative duality gap; of a closed form, relative, against 40 digits; of impact, "
    "relative, against the peer; of a fit, its sum of squares above the lower one, relative; of signs, the share of"
    " trades with the wrong one; of an equilibrium, the residual of its equations; of a gradient, relative, against"
    " central differences; of Monte Carlo, that of mean and variance in standard errors, for random volume against "
    "the peer's; of a power-law frontier, relative duality gap. Every row with its notes: `benchmarks/results/`."
)

_WORDS = {
    "schedules": "power-law schedule",
    "mixed schedules": "schedule with kinks, caps, drift, gaps and dead volume",
}


def _speed(row: harness.Row) -> str:
    cells = [_what(row), _seconds(row.run_seconds), _error(row.error)]
    cells += [row.peer or "–", _seconds(row.peer_seconds), _error(row.peer_error)]
    cells.append("–" if row.ratio is None else f"{_figures(row.ratio)}×")
    return f"| {' | '.join(cells)} |"


def _limit(row: harness.Row) -> str:
    """What has no peer: its note says what the figure is."""
    if row.peer:
        return _gradient(row) if "inputs" in row.size else _speed(row)
    note = row.note.partition("; flagged (")[0].replace("|", "\\|")  # which ones: in the saved rows
    return f"| {_what(row)} | {_seconds(row.run_seconds)} | {_error(row.error)} | {note} | – | – | – |"


def _what(row: harness.Row) -> str:
    sizes = row.size
    if {"trades", "stocks"} <= sizes.keys():
        unit = f", {sizes['trades']:,} trades of {sizes['stocks']:,} stocks"
    elif sizes.get("orders") == 1:
        unit = f", {sizes['steps']} steps"
    elif {"orders", "steps"} <= sizes.keys():
        others = [f"{v:,} {k}" for k, v in sizes.items() if k not in ("orders", "steps", "inputs")]
        unit = f", batch of {sizes['orders']:,} × {sizes['steps']} steps" + "".join(f", {o}" for o in others)
    else:
        unit = "".join(f", {v:,} {k.replace('_', ' ')}" for k, v in sizes.items())
    narrow = "" if row.dtype == "float64" else f", {row.dtype}"
    return f"{_WORDS.get(row.case, row.case)}{unit}{narrow}"


def _gradient(row: harness.Row) -> str:
    assert row.run_seconds is not None and row.peer_seconds is not None
    times = f"{row.run_seconds / row.peer_seconds:.2g} × the value's time"
    of = "inputs" if "inputs" in row.size else "parameters"
    what = f"{row.case.replace('_', ' ')}, {row.size[of]:,} {of}"
    cells = [what, _seconds(row.run_seconds), _error(row.error), row.peer, _seconds(row.peer_seconds), "–", times]
    return f"| {' | '.join(cells)} |"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{_figures(value / size)} {unit}"
    return f"{_figures(value * 1e9)} ns"


def _figures(value: float) -> str:
    """Two significant digits, no exponent."""
    return f"{float(f'{value:.2g}'):,.10g}"


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}"
