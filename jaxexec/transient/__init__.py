"""Transient impact: a trade moves the price, which comes back. Kernels, optimal schedules, tests of manipulation."""

from jaxexec.transient.kernels import (
    CustomKernel,
    ExponentialKernel,
    ImpactKernel,
    PowerLawKernel,
    SingularPowerLawKernel,
    SumKernel,
)
from jaxexec.transient.manipulation import ManipulationTest, manipulation_test
from jaxexec.transient.path import ImpactPath, impact_path
from jaxexec.transient.schedule import TransientSchedule, transient_cost, transient_schedule

__all__ = [
    "CustomKernel",
    "ExponentialKernel",
    "ImpactKernel",
    "ImpactPath",
    "ManipulationTest",
    "PowerLawKernel",
    "SingularPowerLawKernel",
    "SumKernel",
    "TransientSchedule",
    "impact_path",
    "manipulation_test",
    "transient_cost",
    "transient_schedule",
]
