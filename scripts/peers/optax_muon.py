"""A peer of `npm run bench:peers`: Muon of optax, compiled by JAX for the CPU.

It answers each line of request with a line of JSON.
"""

import json
import os
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import optax
from optax.contrib import muon

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def muon_task(rows, columns):
    keys = jax.random.split(jax.random.PRNGKey(0))
    weight, gradient = (jax.random.normal(key, (rows, columns)) for key in keys)
    optimizer = muon(1e-3, ns_coeffs=COEFFICIENTS, ns_steps=5)
    state = optimizer.init(weight)

    @jax.jit
    def update(weight, gradient, state):
        direction, state = optimizer.update(gradient, state, weight)
        return optax.apply_updates(weight, direction), state

    return lambda: jax.block_until_ready(update(weight, gradient, state))


print(json.dumps({"name": f"optax {optax.__version__}, JAX {jax.__version__}", "tasks": ["muon"]}), flush=True)
tasks = {}
for line in sys.stdin:
    request = json.loads(line)
    key = (request["rows"], request["columns"])
    if key not in tasks:
        tasks = {key: muon_task(*key)}
        tasks[key]()
    samples = []
    for _ in range(request["repeats"]):
        start = time.perf_counter()
        tasks[key]()
        samples.append(1e3 * (time.perf_counter() - start))
    print(json.dumps(samples), flush=True)
