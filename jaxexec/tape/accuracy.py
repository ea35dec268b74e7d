"""How often each sign rule is right, on a tape that says who initiated its trades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxexec.presentation import Table
from jaxexec.tape.errors import InputError
from jaxexec.tape.matching import Duration, match
from jaxexec.tape.sign_rules import SIGN_RULES
from jaxexec.tape.signing import WITHOUT_QUOTES, midpoint_policy, own_quotes, sign_matched

if TYPE_CHECKING:
    import polars as pl

PLACES = ("all", "at a quote", "inside", "midpoint", "outside", "no quote")
_ROW = "row of the sample"


@dataclass(frozen=True)
class RuleAccuracy:
    """What one rule made of the trades at one place of the book whose side is known.

    Attributes:
        rule: name of the sign rule.
        place: "all", "at a quote", "inside" (but not at the midpoint), "midpoint", "outside" or "no quote" (none
            that prevails, or bid >= ask).
        trades: trades there.
        signed: of these, trades that the rule gave a sign.
        right: of these, trades that it gave the right one.
    """

    rule: str
    place: str
    trades: int
    signed: int
    right: int

    @property
    def signed_share(self) -> float:
        """signed/trades; NaN where there are none."""
        return self.signed / self.trades if self.trades else float("nan")

    @property
    def right_share(self) -> float:
        """right/signed; NaN where there are none."""
        return self.right / self.signed if self.signed else float("nan")


@dataclass(frozen=True)
class AccuracyReport:
    """What `compare_rules` found.

    Attributes:
        rows: a row a rule and place that has trades, rules in the order asked for.
        unknown: trades without a known side, which are not counted.
    """

    rows: tuple[RuleAccuracy, ...]
    unknown: int

    def row(self, rule: str, place: str = "all") -> RuleAccuracy:
        """The row of a rule and place; counts of zero where the place has no trades.

        Raises:
            KeyError: a rule that was not asked for.
        """
        if rule not in {row.rule for row in self.rows}:
            raise KeyError(rule)
        found = [row for row in self.rows if (row.rule, row.place) == (rule, place)]
        return found[0] if found else RuleAccuracy(rule, place, 0, 0, 0)

    def table(self) -> Table:
        """A row a rule, for the terminal or HTML: shares in per cent, those by place of trades signed and right."""
        places = [place for place in PLACES if any(row.place == place for row in self.rows)]
        rules = list(dict.fromkeys(row.rule for row in self.rows))
        columns = ["rule", "trades", "signed %", *(f"right %, {place}" for place in places)]
        rows = []
        for rule in rules:
            whole = self.row(rule)
            shares = [_per_cent(self.row(rule, place).right_share) for place in places]
            rows.append([rule, whole.trades, _per_cent(whole.signed_share), *shares])
        footer = f"Right is counted among the trades that got a sign. {self.unknown:,} trades of unknown side left out."
        return Table("How often each sign rule is right", columns, rows, footer)

    def __str__(self) -> str:
        return self.table().text()


def compare_rules(
    trades: pl.DataFrame,
    quotes: pl.DataFrame | None = None,
    *,
    rules: Sequence[str] = tuple(SIGN_RULES),
    lag: Duration = "0s",
    interpolate: Duration | None = None,
) -> AccuracyReport:
    """Sign the same trades by each rule and count how often it is right.

    A trade at the midpoint is signed by the tick test under all rules but the quote rule, which leaves it out.

    Args:
        trades: cleaned canonical trades with a column `side`, as from
            `clean(read(…, columns={"side": "<name in the file>"}))`; LOBSTER and Databento files name theirs.
        quotes: cleaned canonical quotes; None where the trades carry the quotes that prevailed at them, or for
            the tick rule alone.
        rules: names of rules.
        lag, interpolate: see `match`.

    Raises:
        InputError: an unknown rule, trades without `side`, or a rule that needs quotes where there are none.
    """
    import polars as pl

    if "side" not in trades.columns:
        raise InputError("side", "the trades do not say who initiated them: read them with columns={'side': ...}")
    carried = {"bid_ticks", "ask_ticks"} <= set(trades.columns)
    if quotes is None and not carried and set(rules) - set(WITHOUT_QUOTES):
        raise InputError("quotes", "only the tick rule does without: give quotes, or rules=('tick',)")
    ordered = trades.sort("symbol", "date", "time", "sequence", maintain_order=True)
    matched = own_quotes(ordered) if quotes is None else match(ordered, quotes, lag, interpolate=interpolate)
    side = matched["side"].fill_null(0).to_numpy()
    known, places = side != 0, _places(matched)
    numbered = matched.with_columns(pl.int_range(pl.len()).alias(_ROW))
    rows: list[RuleAccuracy] = []
    for rule in rules:
        signed, _ = sign_matched(numbered, rule, midpoint_policy(rule, None))
        signs = np.zeros(len(side), np.int8)
        signs[signed[_ROW].to_numpy()] = signed["sign"].to_numpy()
        for place, here in places.items():
            counted = known & here
            if place == "all" or counted.any():
                got, right = counted & (signs != 0), counted & (signs == side)
                rows.append(RuleAccuracy(rule, place, int(counted.sum()), int(got.sum()), int(right.sum())))
    return AccuracyReport(tuple(rows), int(np.count_nonzero(~known)))


def _places(matched: pl.DataFrame) -> dict[str, np.ndarray]:
    """Where each trade stands in the book that prevailed; each trade is at one place, and in "all"."""
    ticks = matched["ticks"].to_numpy()
    bid, ask = (matched[name].fill_null(0).to_numpy() for name in ("bid_ticks", "ask_ticks"))
    quoted = (matched["bid_ticks"].is_not_null() & matched["ask_ticks"].is_not_null()).to_numpy() & (bid < ask)
    touch, middle = quoted & ((ticks == bid) | (ticks == ask)), quoted & (2 * ticks == bid + ask)
    outside = quoted & ((ticks < bid) | (ticks > ask))
    masks = (np.ones(len(ticks), bool), touch, quoted & ~(touch | middle | outside), middle, outside, ~quoted)
    return dict(zip(PLACES, masks, strict=True))


def _per_cent(share: float) -> float | None:
    return None if np.isnan(share) else round(100 * share, 2)
