"""The best times out of many: one jump's cost between any two of them, and the cheapest way through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..core import Field
from ..denoiser import Denoiser
from ..errors import ArgumentError, positive, whole
from ..guidance import Guidance
from .trajectories import Trajectories


def cheapest_path(costs: Tensor, steps: int, discount: float = 1.0) -> list[int]:
    """The nodes 0 = i_0 < ... < i_steps = N - 1 with the least sum_k discount^k costs[i_k, i_{k+1}].

    Bellman's recursion from the end: with V_0 = 0 at node N - 1 and infinite elsewhere, the cheapest way on
    from node i in k jumps is V_k(i) = min_j costs[i, j] + discount V_{k-1}(j). So a discount above 1 weighs
    late jumps more. The minimum is the global one.

    costs: [N, N] of jumps from node i to node j; those not above the diagonal are not looked at.

    Raises:
        ArgumentError: fewer nodes than steps + 1, costs that are not finite, or a discount that is not
            above 0.
    """
    nodes, steps = len(costs), whole("steps", steps, 1)
    if nodes < steps + 1:
        raise ArgumentError(f"{steps} steps need {steps + 1} nodes at least, and there are {nodes}")
    forward = torch.ones_like(costs, dtype=torch.bool).triu(1)
    if not costs[forward].isfinite().all():
        raise ArgumentError("a jump's cost is not finite: what does the model answer there?")
    discount = positive("discount", discount)
    allowed = costs.masked_fill(~forward, torch.inf)
    value = torch.full((nodes,), torch.inf, dtype=costs.dtype, device=costs.device)
    value[-1] = 0.0
    choices = []
    for _ in range(steps):
        value, choice = (allowed + discount * value).min(1)
        choices.append(choice.tolist())
    path = [0]
    for choice in reversed(choices):
        path.append(choice[path[-1]])
    return path


def jump_costs(
    model: Denoiser,
    paths: Trajectories,
    *,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> Tensor:
    """By how much one step of DDIM misses, between any two of the trajectories' times and clean data.

        c(i, j) = mean |r x_i + q D(t_i, x_i) - x_j|^2,     (r, q) = ddim_row(t_i, t_j)

    with x_i the exact state at t_i, over noises and elements. Costs one evaluation of each state.

    Returns:
        [K + 1, K + 1] on the CPU, 0 where j <= i; the last node is the end, clean data.
    """
    cond = model.conditioning(cond, len(paths.end), paths.end.device)
    return jumps(model.fields(cond, guidance)[paths.axis.field], paths)


@torch.no_grad()
def jumps(field: Field, paths: Trajectories) -> Tensor:
    """`jump_costs` of any field: the steps are those of the axis, for an ODE Euler's."""
    nodes = [*paths.times, paths.axis.end]
    costs = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for i, (s, x) in enumerate(zip(paths.times, paths.states, strict=True)):
        predicted = field(s, x)
        for j, t in enumerate(nodes[i + 1 :], i + 1):
            r, q = paths.axis.row(s, t)
            miss = torch.add(q * predicted, x, alpha=r) - (paths.end if t == nodes[-1] else paths.states[j])
            costs[i, j] = miss.double().square().mean()
    return costs


def optimal_times(
    model: Denoiser,
    nfe: int,
    paths: Trajectories,
    *,
    discount: float = 1.0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> list[float]:
    """nfe of the trajectories' times on which DDIM leaves them least, by dynamic programming.

    Trajectories of one model have one shape, whatever the noise, so a few of them (16 will do) tell where a
    long step goes wrong. The cost of a grid is that of its jumps, each from the exact state, the k-th times
    discount^k: above 1 it says that what is missed late is not mended. The times serve other methods as well.

    An Euler step in the frames "sigma" and "velocity" keeps x0_hat and eps_hat still, which is DDIM. So on a
    flow this is Euler on the velocity, and the mean square with discount 1 is Bellman optimal step sizes.
    GITS adds distances and not squares, with discount 1.15, whose square is 1.32 here. On Gaussian mixtures
    1 was better in each of three processes, for DDIM and for Adams methods.

    Costs one evaluation of each state of `paths`, made with the same cond and guidance.

    Returns:
        Falling process times [nfe], t_max first, as `plan_sampling(..., grid=)` takes them. After the last
        comes clean data.

    Raises:
        ArgumentError: nfe below 1, or more than there are times in `paths`.

    Reference: Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion sampling" (GITS);
    Nguyen et al. 2024, "Bellman optimal step-size straightening of flow-matching models".
    """
    costs = jump_costs(model, paths, cond=cond, guidance=guidance)
    return [paths.times[i] for i in cheapest_path(costs, nfe, discount)[:-1]]
