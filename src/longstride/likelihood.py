"""Log-likelihood of data under a model, by the change of variables along the probability-flow ODE."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from . import grid as grids
from .core import Field, Weight
from .denoiser import Denoiser
from .errors import ArgumentError, SolveError, unknown, whole
from .frame import PREDICTIONS, Frame, conversion
from .guidance import Guidance
from .methods import get
from .noise import Noise, seed_of
from .plan import Plan
from .process import Process
from .sampling import positive_times, sample

DEFAULT_METHOD, DEFAULT_NFE = "abm_4", 100
PROBES = "longstride probes"  # the name under which probes travel, dealt out sample by sample
Product = Callable[[Tensor], Tensor]  # v [B, d] -> J^T v [B, d]


@dataclass(frozen=True)
class Likelihood:
    """log_p [n], in nats for each sample, of x where the run began.

    standard_error [n]: of the estimate of the trace, 0 where that is exact and NaN where a single probe
    cannot tell. It knows nothing of the error of the steps: more evaluations tell that.
    z [n, *shape]: where x came from, at the last time of the run.  nfe: evaluations per sample.  products:
    vector-Jacobian products per sample, each about twice an evaluation.
    """

    log_p: Tensor
    standard_error: Tensor
    z: Tensor
    nfe: int
    products: int

    def bits(self, levels: int) -> Tensor:
        """Bits per dimension [n] of images of `levels` grey values spread over [-1, 1], see `dequantized`.

        A cell is 2/(levels - 1) wide, so -log2 P = -log2 p + d log2((levels - 1)/2).
        """
        levels = whole("levels", levels, 2)
        return math.log2((levels - 1) / 2) - self.log_p / (self.z[0].numel() * math.log(2))


def dequantized(x: Tensor, levels: int, seed: int | torch.Generator = 0) -> Tensor:
    """x [n, *shape] of `levels` grey values spread evenly over [-1, 1], each moved evenly within its cell.

    The cell of a value is centred on it and 2/(levels - 1) wide. With x + noise in the place of x, the
    mean of `Likelihood.bits` is an upper bound on the bits of the discrete images (Theis et al. 2016).

    Raises:
        ArgumentError: values between the levels.
    """
    levels = whole("levels", levels, 2)
    cell = 2 / (levels - 1)
    grey = (x + 1) / cell
    if not ((grey - grey.round()).abs() < 0.01).all() or not ((x > -1.01) & (x < 1.01)).all():
        raise ArgumentError(f"x is not {levels} grey values spread evenly over [-1, 1]: give the images")
    noise = Noise(seed_of(seed), range(len(x)), x.shape[1:]).uniform()
    return x + (cell * (noise - 0.5)).to(x)


def exact(product: Product, probes: Tensor) -> Tensor:
    """tr J [B, 1]: as many products as dimensions. In a loop: vmap cannot go through every network."""
    identity = torch.eye(probes.shape[2]).to(probes)
    diagonal = [product(e.expand(len(probes), -1))[:, i] for i, e in enumerate(identity)]
    return torch.stack(diagonal, 1).sum(1, keepdim=True)


def forms(product: Product, vectors: Tensor) -> Tensor:
    """v^T J v [B, m] for each v of vectors [B, m, d]."""
    return torch.stack([(v * product(v)).sum(1) for v in vectors.unbind(1)], 1)


def hutchinson(product: Product, probes: Tensor) -> Tensor:
    """Estimates s^T J s of tr J [B, m], s the signs of each probe: unbiased, exact for a diagonal J
    (Hutchinson 1989)."""
    return forms(product, torch.where(probes < 0, -1.0, 1.0).to(probes))


def hutch_plus_plus(product: Product, probes: Tensor) -> Tensor:
    """Estimates of tr J [B, m - 2 (m // 3)]: the trace on the range Q of J^T S, which is exact, and beside it
    one for each of the other probes g, from g' = (1 - Q Q^T) g (Meyer et al. 2021, algorithm 1).

    S is a third of the probes. g' has an even direction among the d - r left, so (d - r) g'^T J g'/|g'|^2 is
    unbiased and, other than g'^T J g', exact where J is a multiple of 1 there (Epperly et al. 2024,
    XTrace). All is exact where the rank of J is not above that of S.
    """
    rank, d = probes.shape[1] // 3, probes.shape[2]
    sketch = torch.stack([product(v) for v in probes[:, :rank].unbind(1)], 2)
    q = torch.linalg.qr(sketch).Q  # [B, d, rank]
    rest = probes[:, 2 * rank :]
    rest = rest - rest @ q @ q.mT
    share = (d - q.shape[2]) / rest.square().sum(2).clamp(min=torch.finfo(rest.dtype).tiny)
    return forms(product, q.mT).sum(1, keepdim=True) + share * forms(product, rest)


TRACES = {"exact": exact, "hutchinson": hutchinson, "hutch++": hutch_plus_plus}


class Watched(nn.Module):
    """A network whose output must depend on x by autograd, which the first call tells."""

    def __init__(self, net: Callable[..., Tensor]):
        super().__init__()
        self.net, self.known = net, False

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        out = self.net(x, t, **cond)
        if isinstance(out, Tensor) and not self.known:
            slope = None  # a network with parameters may have a derivative, and yet none in x
            if out.requires_grad:
                slope = torch.autograd.grad(out.sum(), x, retain_graph=True, allow_unused=True)[0]
            if slope is None:
                raise SolveError(
                    "a likelihood needs the derivative of the network, but its output does not depend on x "
                    "by autograd: run it without detach(), no_grad() or numpy"
                )
            self.known = True
        return out


@dataclass(frozen=True, kw_only=True)
class Transport(Denoiser):
    """A Denoiser as the field of x and of log|det du_t/du_0| beside it, a state [B, d + k].

    In the frame x = S u, du/dtau = L u + F, a log-determinant l changes by dl/dtau = d L + div_u F. As S l
    it is one more coordinate of x with the field S div_x F + d L + ..., and the rows of a plan carry both.

    The prediction is a x + b D, D that of the data, and J is the Jacobian of D: alpha/sigma^2 times the
    covariance of the data given x, which a few directions make up where the data have a few.
    """

    model: Denoiser
    frame: Frame
    trace: str

    def fields(
        self, cond: Mapping[str, Any] | None = None, guidance: Weight | Guidance = 1.0
    ) -> tuple[Field, ...]:
        given = dict(cond or {})
        probes = given.pop(PROBES)
        field = self.model.fields(given, guidance)[self.frame.field]
        d, L, factor = probes.shape[2], self.frame.L, self.frame.factor

        def evaluate(t: float, state: Tensor) -> Tensor:
            scale = self.frame.scale(t)
            a, b = conversion("data", PREDICTIONS[self.frame.field], *self.frame.process.pair(t))
            x, log_det = state[:, :d].detach().requires_grad_(), state[:, d:] / scale
            with torch.enable_grad():
                out = field(t, x.reshape(-1, *self.model.shape)).flatten(1)

            def product(v: Tensor) -> Tensor:
                pulled = torch.autograd.grad(out, x, v, retain_graph=True, materialize_grads=True)[0]
                return (pulled - a * v) / b

            trace = a * d + b * TRACES[self.trace](product, probes.to(x))
            rate = scale * trace + L * (d - log_det) / factor
            return torch.cat([out.detach(), rate], 1)

        return (evaluate,) * len(PREDICTIONS)


def plan_likelihood(
    process: Process,
    method: str = DEFAULT_METHOD,
    nfe: int | None = None,
    grid: grids.Grid | None = None,
    **options: Any,
) -> tuple[Plan, Frame]:
    """The weights of a method from the last time of a grid (t_min) up to its first (t_max), and its frame.

    Raises:
        ArgumentError: a method that draws noise, or whose frame is infinite where alpha = 0.
    """
    rule = get(method, **options)
    if rule.diffusion:
        raise ArgumentError(f"method {method!r} is no plain ODE's: take abm_4, rk4 or krogstad")
    frame = Frame(process, rule.prediction or "velocity")
    family, given = positive_times(process, "log_snr" if grid is None else grid)
    if given and nfe is None:
        parts = tuple(rule.full(n) for n in range(len(given) - 1))
    else:
        budget = whole("nfe", DEFAULT_NFE if nfe is None else nfe, 1 + rule.evaluates_end)
        parts = rule.split(budget - rule.evaluates_end)
    times = grids.times(process, len(parts) + 1, given or family)[::-1]
    if not parts:
        raise ArgumentError("the grid has one time: give two at least, t_min and t_max")
    if not math.isfinite(frame.clock(times[-1])):
        raise ArgumentError(
            f"the frame of method {method!r} is infinite at t = {times[-1]:g}, where alpha = 0: "
            "give prediction='velocity', or a method that has it, such as abm_4"
        )
    steps = tuple(rule.step(times, n, frame, evals) for n, evals in enumerate(parts))
    return Plan(tuple(times), steps, process.describe(), method, rule.options), frame


def log_likelihood(
    model: Denoiser,
    x: Tensor,
    *,
    nfe: int | None = None,
    method: str = DEFAULT_METHOD,
    grid: grids.Grid | None = None,
    trace: str = "exact",
    probes: int = 1,
    seed: int | torch.Generator = 0,
    prior: Callable[[Tensor], Tensor] | None = None,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    batch: int = 256,
    **options: Any,
) -> Likelihood:
    """log p of x [n, *shape] at t_min, under the probability-flow ODE that ends there.

    The ODE carries x to z at t_max and log p(x) = log p_max(z) + log|det dz/dx|; the log-determinant is the
    integral of the divergence of the ODE, a trace (Chen et al. 2018; Song et al. 2021). Both run through
    one plan. x is the data with the noise of t_min; give float64 where six digits matter.

    Args:
        nfe, method, options: see `plan_likelihood`; any method of an ODE.  grid: as for `sample`, falling
            from t_max to t_min, and run backwards.
        trace: "exact" takes d vector-Jacobian products an evaluation in d dimensions; "hutchinson" and
            "hutch++" take `probes`, and at least 3 the latter, whose error falls faster where few
            directions make up the trace.
        seed: of the probes, those of sample i whatever the batch, the same at all times.
        prior: log-density of z [n, *shape] at t_max, [n]; by default that of N(0, sigma^2), which leaves
            out the data's share of z.
        cond, guidance, batch: see `sample`. Guided, it is the density of what the guided ODE samples.

    Raises:
        ArgumentError: a bad argument, before anything is run.
        SolveError: a network without a derivative, NaN, or a prior that is not one number a sample.
    """
    if trace not in TRACES:
        raise unknown("trace", trace, TRACES)
    probes = 0 if trace == "exact" else whole("probes", probes, 3 if trace == "hutch++" else 1)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise ArgumentError("x must be a tensor of floats [n, *shape], n at least 1")
    shape = tuple(x.shape[1:])
    if model.shape not in ((), shape):
        raise ArgumentError(f"x is {list(x.shape)} where the model wants [n, *{list(model.shape)}]")
    n, d = len(x), math.prod(shape)
    plan, frame = plan_likelihood(model.process, method, nfe, grid, **options)
    noise = Noise(seed_of(seed), range(n), (d,))
    drawn = torch.stack([noise.probe(k) for k in range(probes)], 1) if probes else torch.empty(n, 0, d)
    columns = {"exact": 1, "hutchinson": probes, "hutch++": probes - 2 * (probes // 3)}[trace]
    model = replace(model, net=Watched(model.net), shape=shape)
    transport = Transport(
        model.net, model.process, model.predicts, (d + columns,), null=model.null, name=model.name,
        model=model, frame=frame, trace=trace,
    )  # fmt: skip
    end = sample(
        transport, x_init=torch.cat([x.flatten(1), x.new_zeros(n, columns)], 1), plan=plan,
        cond={**(cond or {}), PROBES: drawn}, guidance=guidance, batch=batch,
    )  # fmt: skip
    z, scale = end[:, :d].reshape(x.shape), frame.scale(plan.times[-1])
    log_det = end[:, d:].double() / scale + d * math.log(scale / frame.scale(plan.times[0]))
    if prior is None:
        sigma = model.process.sigma(plan.times[-1])
        log_prior = -0.5 * ((z.double() / sigma) ** 2 + math.log(2 * math.pi * sigma**2)).flatten(1).sum(1)
    else:
        log_prior = prior(z)
        if not isinstance(log_prior, Tensor) or log_prior.shape != (n,):
            raise SolveError(f"prior must return the log-density of each of {n} samples, a tensor [{n}]")
    error = log_det.new_full((n,), 0.0 if trace == "exact" else math.nan)
    if columns > 1:
        error = log_det.std(1) / columns**0.5
    products = plan.nfe * (d if trace == "exact" else probes)
    return Likelihood(log_prior + log_det.mean(1), error, z, plan.nfe, products)
