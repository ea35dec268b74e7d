"""How often intervals cover the truth."""

import numpy as np

REPLICATIONS = 2_000
LEAST, MOST = 0.935, 0.965


def assert_covers(intervals, truth):
    """95 % intervals cover each parameter in 93.5 to 96.5 % of the replications."""
    covered = (intervals[..., 0] < truth) & (truth < intervals[..., 1])
    share = covered.reshape(-1, covered.shape[-1]).mean(0)
    assert np.all((share >= LEAST) & (share <= MOST)), share
