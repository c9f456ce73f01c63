"""The network's mean error at each time, taken off what it returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import ArgumentError, whole
from ..frame import PREDICTIONS
from ..guidance import Guidance
from ..noise import Noise

V = PREDICTIONS.index("v")  # the prediction that is finite at both ends, and so are its rows


class Calibrated(nn.Module):
    """net(x, t) - bias(t): bias [K, *shape] at the rising times t [K] that a network is told, linear between.

    time: what the network wants of t, as `Denoiser.time`.
    """

    def __init__(self, model: Denoiser, t: Tensor, bias: Tensor):
        super().__init__()
        self.net, self.time = model.net, model.time
        self.t, self.bias = t, bias  # no buffers: those would say which precision the state has

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        out = self.net(x, t.to(x.dtype) if self.time is None else self.time(t), **cond)
        known, bias = self.t.to(t), self.bias.to(out)
        above = torch.searchsorted(known, t.contiguous()).clamp(1, len(known) - 1)
        low, high = known[above - 1], known[above]
        share = ((t - low) / (high - low)).clamp(0, 1).to(out.dtype)
        share = share.reshape(-1, *[1] * (out.ndim - 1))
        return out - torch.lerp(bias[above - 1], bias[above], share)


@torch.no_grad()
def calibrated(
    model: Denoiser,
    data: Tensor,
    times: Sequence[float],
    *,
    cond: Mapping[str, Any] | None = None,
    batch: int = 256,
    seed: int = 0,
) -> Denoiser:
    """The model without its mean error at `times`, which is E[prediction - truth] over noised data.

    The exact network has E[eps_hat(x_t, t)] = E[E[eps | x_t]] = 0 at every t. One that has E[eps_hat] = eta
    instead loses |eta|^2 of its squared error when eta is subtracted, the most that a term without x can do.
    As E[eps] = 0 as well, eta = E[eps_hat - eps], whose estimate has less spread; and the same in any
    prediction, all being affine in each other. So the mean error of v, which is finite at pure noise too, is
    estimated, and what is subtracted from the network's own output is that over its weight b in v.

    Args:
        data: x_0 [N, *shape], such as the training data, with `cond` for them. One noise for each, the same
            at all times: data.repeat(4, 1, 1, 1) has four.
        times: where to estimate, such as plan.times[:-1]; in between the table is linear in what the network
            is told, and constant beyond its ends.

    Guided, the same table is taken off both predictions, so off the guided one.

    Costs len(times) evaluations of all data, once. NFE and network calls of a sample stay what they were.

    Raises:
        ArgumentError: data that are not the model's, fewer than two times, or a model that is retimed.

    Reference: Pang et al. 2023, "On calibrating diffusion probabilistic models".
    """
    batch = whole("batch", batch, 1)
    if data.ndim < 2 or not len(data) or not data.is_floating_point() or tuple(data.shape[1:]) != model.shape:
        raise ArgumentError(f"data is {list(data.shape)}: give x_0 as floats [N, *{list(model.shape)}]")
    if len(set(times)) < 2:
        raise ArgumentError("calibration needs two times at least, such as plan.times[:-1]")
    if model.told is not None:
        raise ArgumentError("the model is retimed, so one time has several truths: calibrate it before that")
    where = model.device or data.device
    cond = model.conditioning(cond, len(data), where)
    times = sorted(set(times))
    total = torch.zeros(len(times), *model.shape, dtype=torch.float64, device=where)
    for first in range(0, len(data), batch):
        x_0 = data[first : first + batch].to(where)
        rows = slice(first, first + len(x_0))
        eps = Noise(seed, range(rows.start, rows.stop), model.shape).prior().to(x_0)
        dealt = {k: w[rows] if isinstance(w, Tensor) and w.ndim else w for k, w in cond.items()}
        v_hat = model.fields(dealt)[V]
        for error, t in zip(total, times, strict=True):
            alpha, sigma = model.process.pair(t)
            v = (alpha * eps - sigma * x_0) / math.hypot(alpha, sigma)
            error += (v_hat(t, alpha * x_0 + sigma * eps) - v).double().sum(0)
    rows_of_v = [model.weights("v", t, Guidance()) for t in times]
    told, b = (torch.tensor([row[i] for row in rows_of_v], dtype=torch.float64) for i in (1, 3))
    bias = total / len(data) / b.to(where).reshape(-1, *[1] * len(model.shape))
    return replace(model, net=Calibrated(model, told.to(where), bias.to(model.dtype)), time=lambda t: t)
