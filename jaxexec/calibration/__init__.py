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
from jaxexec.calibration.states import StateTest as StateTest
from jaxexec.calibration.states import rows_by_state as rows_by_state
from jaxexec.calibration.states import same_in_all_states as same_in_all_states
from jaxexec.calibration.states import states_of as states_of

__all__ = [
    "Calibration",
    "ParameterFit",
    "PooledFit",
    "PropagatorFit",
    "Provenance",
    "StateTest",
    "calibrate",
    "execution_cost",
    "fit",
    "meta_order_impact",
    "observed_preferences",
    "propagator",
    "rows_by_state",
    "same_in_all_states",
    "shrink",
    "square_root_law",
    "stated_market",
    "states_of",
    "with_execution_cost",
    "with_meta_order_impact",
    "with_preferences",
    "with_propagator",
]
