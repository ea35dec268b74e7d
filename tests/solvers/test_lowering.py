"""What `solve` becomes: programmes for other devices, and shards that do not talk to each other."""

import functools
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxexec as jx
from benchmarks.random_problems import mixed
from tests.problems import one

# What JAX may put into a portable programme for CUDA: no host callback, no LAPACK, nothing of the CPU's.
_PORTABLE = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


def custom_calls(exported) -> set[str]:
    return set(re.findall(r"custom_call @(\w+)", exported.mlir_module())) - _PORTABLE


@pytest.mark.parametrize("kind", ["", "drift target"])
@pytest.mark.parametrize("function", ["solve", "gradient", "batch"])
def test_lowers_for_cuda_without_callbacks_or_custom_calls(kind, function):
    problem = one(kind)
    if function == "batch":
        problem = jax.tree.map(lambda x: np.stack([x, x]), problem)
    works = {
        "solve": jx.solve,
        "gradient": jax.grad(lambda p: jx.solve(p).expected_cost),
        "batch": jax.vmap(functools.partial(jx.solve, solver=jx.LadderNewton(chunk=1024))),
    }
    exported = jax.export.export(jax.jit(works[function]), platforms=["cuda"])(problem)
    assert custom_calls(exported) == set()


def test_capped_orders_lower_for_cuda():
    batch = mixed(3, 4, 12)
    exported = jax.export.export(jax.jit(jax.vmap(jx.solve)), platforms=["cuda"])(batch)
    assert custom_calls(exported) == set()


_SHARDED = """
import json
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
import jaxexec as jx
from benchmarks.random_problems import mixed
from jaxexec.scale import _sharded
batch = mixed(3, 64, 12)
devices = jax.devices()
one, eight = jx.solve_many(batch, devices=devices[:1]), jx.solve_many(batch, devices=devices)
text = _sharded(None, tuple(devices)).lower(batch).compile().as_text()
words = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
unit = np.abs(np.asarray(batch.shares))[:, None]
print(json.dumps({
    "devices": len(devices),
    "collectives": [w for w in words if w in text],
    "status": bool(np.array_equal(one.status, eight.status)),
    "inventory": float(np.nanmax(np.abs(one.inventory - eight.inventory) / unit)),
    "objective": float(np.nanmax(np.abs(one.objective / eight.objective - 1))),
}))
"""


def test_shards_over_eight_devices_agree_and_do_not_communicate():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", _SHARDED], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["devices"] == 8
    assert found["collectives"] == []
    assert found["status"]
    assert found["inventory"] < 1e-9
    assert found["objective"] < 1e-12


@pytest.mark.gpu
def test_agrees_with_the_cpu():
    """On a GPU: the same schedules as on the CPU of the same host."""
    batch = mixed(3, 64, 48)
    cpu = jax.devices("cpu")[:1]
    here, there = jx.solve_many(batch), jx.solve_many(batch, devices=cpu)
    np.testing.assert_array_equal(here.status, there.status)
    np.testing.assert_allclose(here.objective, there.objective, rtol=1e-9)
