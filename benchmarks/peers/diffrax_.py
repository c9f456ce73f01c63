"""Lorenz with diffrax, in an environment of its own: benchmarks/lorenz.py starts it and asks.

A line in is "KIND TOL"; a line out is JSON: seconds of one run, most steps of a sample, and once the end.
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


def lorenz(t, x, args):
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return jnp.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def solve(x0, tol):
    controller = diffrax.PIDController(rtol=tol, atol=tol)
    out = diffrax.diffeqsolve(
        diffrax.ODETerm(lorenz), diffrax.Tsit5(), 0.0, 5.0, None, x0, stepsize_controller=controller,
        max_steps=100_000, adjoint=diffrax.ForwardMode(),
    )  # fmt: skip
    return out.ys[-1], out.stats["num_steps"]


def main() -> None:
    x0 = jnp.asarray(np.load(sys.argv[1]))
    runs = {"shared": jax.jit(solve), "vmap": jax.jit(jax.vmap(solve, (0, None)))}
    warm = set()
    for line in sys.stdin:
        kind, tol = line.split()
        if kind not in warm:
            jax.block_until_ready(runs[kind](x0, jnp.asarray(float(tol))))
            warm.add(kind)
        began = time.process_time()
        ys, steps = jax.block_until_ready(runs[kind](x0, jnp.asarray(float(tol))))
        seconds = time.process_time() - began
        np.save(sys.argv[2], np.asarray(ys))
        print(json.dumps({"seconds": seconds, "steps": int(jnp.max(steps))}), flush=True)


if __name__ == "__main__":
    main()
