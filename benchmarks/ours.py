"""Longstride's own runs: the registry's deterministic methods for few evaluations, on its grids."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

import longstride as ls
from peers import Run, Task

LINEAR = ("sigma", "velocity", "v")  # predictions of the methods whose own is None: L = 0
OPTIONS: dict[str, tuple[Any, ...]] = {
    "prediction": ("data", "noise"),
    "gamma": (1.25, 1.5, 1.75, 2.0),
    "lower_order_final": (False,),
    "variant": ("bh1", "bh2"),
    "interpolate": (None,),
}
# Second names of methods listed anyway.
TWICE = ("ab_1", "ab_2", "ab_3", "ab_4", "dpmpp_2m_sde", "dpmpp_3m_sde", "ddpm", "exp_euler", "euler",
         "deis_1", "deis_2", "deis_3", "deis_4", "ipndm_1", "lms_1", "ddim")  # fmt: skip
# Methods of many stages or long history, which are for more evaluations than these.
LONG = ("ralston", "kutta_3", "ralston_3", "rk4", "cash_karp", "dopri5", "tsit5", "etdrk3", "etdrk4",
        "krogstad", "hochbruck_ostermann", "exp_adams_4", "unipc_4", "abm_3", "abm_4", "lms_4")  # fmt: skip


def process(task: Task) -> ls.process.Process:
    if task.kind == "edm":
        return ls.process.EDM()
    return ls.process.VP(discrete=True) if task.kind == "vp" else ls.process.Flow()


def denoiser(task: Task) -> ls.Denoiser:
    """The task's data prediction as a network: called once an evaluation, with one t per sample."""

    def net(x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        return task.data(x, float(t[0]), **cond)

    return ls.Denoiser(net, process=process(task), predicts="data", shape=task.shape)


def grids(task: Task) -> dict[str, Any]:
    found: dict[str, Any] = {f"karras rho={r}": ("karras", {"rho": float(r)}) for r in (3, 5, 7)}
    found["log_snr"] = "log_snr"
    for rho in (0.7, 0.85):
        found[f"exponential rho={rho}"] = ("exponential", {"rho": rho})
    found |= {f"decay gamma={g}": ("decay", {"gamma": g}) for g in (0.5, 0.3, 0.1)}
    shifts = (0.2, 0.5, 1.0, 2.0)
    found |= {f"flow_shift shift={s}": ("flow_shift", {"shift": s}) for s in shifts}
    tau = ("decay", "flow_shift", "exponential")
    found |= {f"{k}, open": (v[0], {**v[1], "open": True}) for k, v in found.items() if v[0] in tau}
    if task.kind != "edm":
        found |= {name: name for name in ("uniform", "trailing", "leading")}
        found["leading last=False"] = ("leading", {"last": False})
        found |= {f"quadratic power={p}": ("quadratic", {"power": p}) for p in (1.5, 2.0)}
    return found


def methods() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(label, name, options) of the deterministic methods for few evaluations."""
    for row in ls.list_methods():
        if row.name in (*TWICE, *LONG):
            continue
        varied = {k: OPTIONS[k] for k in row.options if k in OPTIONS}
        if row.kind == "reversible":
            varied.pop("gamma", None)  # another gamma, with a default of its own
        if "prediction" in varied and row.options["prediction"] is None:
            varied["prediction"] = LINEAR
        elif row.name.startswith("exp_adams"):
            varied["prediction"] = (*varied["prediction"], *LINEAR)
        for values in product(*varied.values()):
            options = dict(zip(varied, values, strict=True))
            if row.name == "exp_adams_1" and options != {k: v[0] for k, v in varied.items()}:
                continue
            linear = options.get("prediction") in LINEAR
            if linear and (options.get("lower_order_final") or options.get("interpolate") == "t"):
                continue
            shown = ", ".join(f"{k}={v}" for k, v in options.items() if row.options[k] != v)
            yield f"{row.name}{f' ({shown})' if shown else ''}", row.name, options


def spend(
    model: ls.Denoiser, method: str, options: dict[str, Any], grid: Any, noise: Tensor, nfe: int
) -> Tensor | None:
    try:
        plan = ls.plan_sampling(model.process, method, nfe, grid, **options)
    except ls.ArgumentError:
        return None
    sigma = model.process.sigma(plan.times[0])
    return ls.sample(model, x_init=(noise * sigma).to(torch.float64), plan=plan)


def runs(task: Task) -> Iterator[Run]:
    model = denoiser(task)
    for label, name, options in methods():
        for grid, value in grids(task).items():
            yield Run("longstride", label, grid, partial(spend, model, name, options, value))
