"""What the chapters of the demonstration hand on to each other."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxexec.cli.markets import Day
from jaxexec.cli.run import Run
from jaxexec.presentation import Table


@dataclasses.dataclass
class Story:
    """What the chapters share: what was asked for, what was found, and the pages so far."""

    run: Run
    trades: Path | None
    quotes: Path | None
    exchange: str | None
    midpoint: str | None
    session: Any
    stocks: int
    orders: int
    seed: int
    truth: Any = None
    signed: Any = None
    panel: Any = None
    risk_aversion: float = 0.0
    calibrations: dict[str, Any] = dataclasses.field(default_factory=dict)
    days: dict[str, Day] = dataclasses.field(default_factory=dict)
    sections: list[Any] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def synthetic(self) -> bool:
        """Whether the day is made up."""
        return self.trades is None

    @property
    def symbol(self) -> str:
        """The most active stock that could be calibrated."""
        return max(self.days, key=lambda symbol: float(np.mean(self.days[symbol].volume)))

    def tell(self, heading: str, prose: str, *contents: Any) -> None:
        """Show the tables, and keep all for the report."""
        from jaxexec.report import Section

        for item in contents:
            if isinstance(item, Table):
                self.run.show(item)
        self.sections.append(Section(heading, prose, contents))
