"""ETDRK4 of exponax, in an environment of its own: benchmarks/pde.py starts it and asks."""

from __future__ import annotations

import exponax as ex
import jax
import jax.numpy as jnp
from pde_common import CASES, Run, serve, start

jax.config.update("jax_enable_x64", True)


def stepper(case: str, dt: float):
    about = CASES[case]
    size, how = (about["dim"], about["length"], about["n"], dt), {"order": 4}
    if case == "ks":
        return ex.stepper.KuramotoSivashinskyConservative(*size, **how)
    if case == "kdv":
        return ex.stepper.KortewegDeVries(
            *size, convection_scale=6.0, hyper_diffusivity=0.0, conservative=True, single_channel=True, **how
        )
    if case == "ac":
        return ex.stepper.reaction.AllenCahn(*size, diffusivity=about["nu"], **how)
    if case == "gs":
        one, other = about["nu"]
        rates = {"feed_rate": about["feed"], "kill_rate": about["kill"]}
        return ex.stepper.reaction.GrayScott(*size, diffusivity_1=one, diffusivity_2=other, **rates, **how)
    return ex.stepper.NavierStokesVorticity(
        *size, diffusivity=about["nu"], vorticity_convection_scale=-1.0, **how
    )


def make(case: str, dtype: str, batch: int, dt: float) -> Run:
    jax.config.update("jax_enable_x64", dtype == "float64")
    step = stepper(case, dt)
    x0 = jnp.asarray(start(case), dtype)
    if batch > 1:
        x0, step = jnp.stack([x0] * batch), jax.vmap(step)
    steps = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, lambda i, x: step(x), x))

    def run(n: int):
        return jax.block_until_ready(steps(x0, n))

    return run


if __name__ == "__main__":
    serve(make)
