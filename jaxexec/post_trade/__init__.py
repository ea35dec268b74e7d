"""After the trade: where the shortfall of an order went, against which prices, and what was left on the table.

`implementation_shortfall`, `slippage` and `regret` work on arrays and are traced; `analyse` reads frames of orders and
fills.
"""

from jaxexec.post_trade.analyse import analyse
from jaxexec.post_trade.analysis import Analysis
from jaxexec.post_trade.benchmarks import Slippage, interval_twap, interval_vwap, prevailing_price, slippage
from jaxexec.post_trade.executions import Fills, ParentOrder
from jaxexec.post_trade.frames import Fault
from jaxexec.post_trade.regret import Regret, regret
from jaxexec.post_trade.shortfall import Attribution, Shortfall, implementation_shortfall

__all__ = [
    "Analysis",
    "Attribution",
    "Fault",
    "Fills",
    "ParentOrder",
    "Regret",
    "Shortfall",
    "Slippage",
    "analyse",
    "implementation_shortfall",
    "interval_twap",
    "interval_vwap",
    "prevailing_price",
    "regret",
    "slippage",
]
