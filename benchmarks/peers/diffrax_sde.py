"""SDEs in equal steps with diffrax, in an environment of its own: benchmarks/sde.py starts it and asks.

A line in is "METHOD KIND BATCH STEPS"; a line out is JSON, the microseconds of a step, the least of some runs
after one that compiles. Noise is drawn step by step (`UnsafeBrownianPath`), as it is for the others.
"""

from __future__ import annotations

import json
import sys
import time

import diffrax
import jax
import jax.numpy as jnp
import lineax

jax.config.update("jax_enable_x64", True)
SOLVERS = {"euler_maruyama": diffrax.Euler, "midpoint": diffrax.Midpoint}
ROUNDS = 7


def neural(key):
    sizes = ((8, 64), (64, 64), (64, 8))
    keys = jax.random.split(key, 6)
    layers = [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in zip(keys, sizes, strict=False)]
    a, b, c = (jax.random.normal(k, (8, 8)) for k in keys[3:])

    def f(t, x, args):
        return jnp.tanh(jnp.tanh(x @ layers[0]) @ layers[1]) @ layers[2] - x

    def g(t, x, args):
        return (jnp.tanh(x[..., None] * a + b) * c).sum(-1) / 2

    return f, g


def run(method: str, kind: str, batch: int, steps: int):
    shape = (batch, 1 if kind == "geometric" else 8)
    if kind == "geometric":
        f, g = (lambda t, x, args: 0.7 * x), (lambda t, x, args: 0.5 * x)
    else:
        f, g = neural(jax.random.key(0))

    @jax.jit
    def solve(x0, key):
        path = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(shape, jnp.float64), key)
        diagonal = lambda t, x, args: lineax.DiagonalLinearOperator(g(t, x, args))  # noqa: E731
        diffusion = diffrax.ControlTerm(diagonal, path)
        terms = diffrax.MultiTerm(diffrax.ODETerm(f), diffusion)
        return diffrax.diffeqsolve(
            terms, SOLVERS[method](), 0.0, 1.0, 1.0 / steps, x0, max_steps=2 * steps,
            stepsize_controller=diffrax.ConstantStepSize(), adjoint=diffrax.ForwardMode(),
        ).ys[-1]  # fmt: skip

    return lambda n: jax.block_until_ready(solve(jnp.ones(shape), jax.random.key(n)))


def main() -> None:
    for line in sys.stdin:
        method, kind, batch, steps = line.split()
        go, best = run(method, kind, int(batch), int(steps)), float("inf")
        go(0)
        for n in range(ROUNDS):
            began = time.process_time()
            go(n)
            best = min(best, time.process_time() - began)
        print(json.dumps(best / int(steps) * 1e6), flush=True)


if __name__ == "__main__":
    main()
