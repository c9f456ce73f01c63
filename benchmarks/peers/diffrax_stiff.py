"""Stiff problems with diffrax, in an environment of its own: benchmarks/stiff.py starts it and asks.

A line in is JSON, {"problem", "tol", "scale", "end", "x0"}; a line out is JSON: seconds of one run after one
that compiles, the end, and whether it was reached.
"""

from __future__ import annotations

import json
import sys
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def van_der_pol(t, x, args):
    return jnp.stack([x[1], 1000.0 * (1 - x[0] * x[0]) * x[1] - x[0]])


def robertson(t, x, args):
    slow, fast, back = 0.04 * x[0], 3e7 * x[1] * x[1], 1e4 * x[1] * x[2]
    return jnp.stack([back - slow, slow - back - fast, fast])


def brusselator(t, x, args):
    n = len(x) // 2
    pad = jnp.concatenate([jnp.array([[1.0, 3.0]]), x.reshape(n, 2), jnp.array([[1.0, 3.0]])])
    u, v = pad[1:-1].T
    bent = 0.02 * (n + 1) ** 2 * (pad[2:] - 2 * pad[1:-1] + pad[:-2])
    uuv = u * u * v
    return jnp.stack([1 + uuv - 4 * u + bent[:, 0], 3 * u - uuv + bent[:, 1]], 1).ravel()


FIELDS = {"van der pol": van_der_pol, "robertson": robertson, "brusselator": brusselator}


def solver(field):
    @jax.jit
    def solve(x0, tol, scale, end):
        out = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Kvaerno5(), 0.0, end, None, x0, max_steps=100_000, throw=False,
            stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol * scale, pcoeff=0.3, icoeff=0.4),
            adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        return out.ys[-1], out.result == diffrax.RESULTS.successful

    return solve


def main() -> None:
    solvers, warm = {name: solver(field) for name, field in FIELDS.items()}, set()
    for line in sys.stdin:
        asked = json.loads(line)
        numbers = [jnp.asarray(np.array(asked[key])) for key in ("x0", "tol", "scale", "end")]
        run = solvers[asked["problem"]]
        if asked["problem"] not in warm:
            jax.block_until_ready(run(*numbers))
            warm.add(asked["problem"])
        began = time.process_time()
        x, good = jax.block_until_ready(run(*numbers))
        seconds = time.process_time() - began
        print(json.dumps({"seconds": seconds, "x": np.asarray(x).tolist(), "good": bool(good)}), flush=True)


if __name__ == "__main__":
    main()
