"""Fits of markets and costs: to tapes, executions, meta-orders, order flow and observed schedules."""

from jaxexec.calibration.executions import execution_cost as execution_cost
from jaxexec.calibration.fitted_market import stated_market as stated_market
from jaxexec.calibration.fitted_market import with_execution_cost as with_execution_cost
from jaxexec.calibration.fitted_market import with_meta_order_impact as with_meta_order_impact
from jaxexec.calibration.fitted_market import with_preferences as with_preferences
from jaxexec.calibration.fitted_market import with_propagator as with_propagator
from jaxexec.calibration.from_estimates import calibrate as calibrate
from jaxexec.calibration.general import fit as fit
from jaxexec.calibration.market_record import Calibration as Calibration
from jaxexec.calibration.market_record import Provenance as Provenance
from jaxexec.calibration.meta_orders import meta_order_impact as meta_order_impact
from jaxexec.calibration.meta_orders import square_root_law as square_root_law
from jaxexec.calibration.observed_schedules import observed_preferences as observed_preferences
from jaxexec.calibration.parameter_fit import ParameterFit as ParameterFit
from jaxexec.calibration.propagator_kernels import PropagatorFit as PropagatorFit
from jaxexec.calibration.propagator_kernels import propagator as propagator
from jaxexec.calibration.shrinkage import PooledFit as PooledFit
from jaxexec.calibration.shrinkage import shrink as shrink

__all__ = [
    "Calibration",
    "ParameterFit",
    "PooledFit",
    "PropagatorFit",
    "Provenance",
    "calibrate",
    "execution_cost",
    "fit",
    "meta_order_impact",
    "observed_preferences",
    "propagator",
    "shrink",
    "square_root_law",
    "stated_market",
    "with_execution_cost",
    "with_meta_order_impact",
    "with_preferences",
    "with_propagator",
]
