"""Kyle's equilibrium: an informed trader, noise, and a market maker who learns. It shares floor 0 only."""

from jaxexec.kyle.equilibrium import Equilibrium, solve

__all__ = ["Equilibrium", "solve"]
