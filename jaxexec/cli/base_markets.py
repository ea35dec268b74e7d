"""The market that a fit is put into: a file, or numbers said on the command line."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from jaxexec.cli import markets
from jaxexec.cli.markets import MarketFiles

if TYPE_CHECKING:
    from jaxexec.calibration import Calibration


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """What is known of a market beside what is fitted.

    Attributes:
        market: Market files, or folders of them, into copies of which the fits are put.
        volatility: Currency per share per square root of a trading day, where there is no file.
        volume: Shares a trading day traded by the others, where there is no file.
        eta: Temporary impact, currency per share at the rate of the whole market.
        phi: Exponent of the temporary impact.
        psi: Half-spread, currency per share.
        permanent_impact: Currency per share for each share traded.
    """

    market: MarketFiles = ()
    volatility: float | None = None
    volume: float | None = None
    eta: float | None = None
    phi: float | None = None
    psi: float | None = None
    permanent_impact: float | None = None

    @property
    def stated(self) -> dict[str, float]:
        """The numbers that were said."""
        return {name: value for name, value in vars(self).items() if name != "market" and value is not None}

    @property
    def files(self) -> list[Path]:
        """The market files."""
        return markets.market_files(self.market)

    def check(self) -> None:
        """Refuse numbers beside a file, and numbers that no market can have.

        Raises:
            ValueError: The option is named.
        """
        if self.market and self.stated:
            raise ValueError(f"--{_option(next(iter(self.stated)))} cannot be given beside --market, which says it")
        if ("volatility" in self.stated) != ("volume" in self.stated):
            given, missing = ("volatility", "volume") if "volatility" in self.stated else ("volume", "volatility")
            raise ValueError(f"--{given} needs --{missing} beside it: a market has both")
        markets.check_assumed(markets.Assumed(**self.stated))

    def calibrations(self, symbols: Iterable[str]) -> "dict[str, Calibration]":
        """Markets by symbol: those of the files, or of each symbol what was said; none where nothing was.

        Raises:
            FileError: A file is no market, or two are of one symbol.
        """
        if self.market:
            return markets.read_calibrations(self.market)
        if self.volatility is None:
            return {}
        from jaxexec.calibration import stated_market

        return {symbol: stated_market(**self.stated, symbol=symbol) for symbol in symbols}


NOTHING = Base()
"""Nothing is known."""


def _option(name: str) -> str:
    return name.replace("_", "-")
