"""Phase-space Langevin diffusion: data x with a momentum m; integrators whose weights are 2x2 matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..core import Stage, Step, Weight
from ..errors import ArgumentError, finite, positive, unknown, whole
from ..integrate import run
from ..noise import Noise, seed_of
from ..plan import Plan

F64 = torch.float64
ONE = torch.eye(2, dtype=F64)
NODES, SHARES = (torch.from_numpy(v)[:, None, None] for v in np.polynomial.legendre.leggauss(24))
# What a substep moves. "?" evaluates, "O" is friction and noise alone, "W" moves all of z with its noise.
PARTS = {"z": ONE, "x": torch.diag(ONE[0]), "m": torch.diag(ONE[1]), "W": ONE}
Word = tuple[tuple[str, float, float], ...]  # a step as substeps (part, from, to), in fractions of it
WORDS: dict[str, Word] = {
    "euler": (("?", 0, 0), ("z", 0, 1)),
    "verlet": (("?", 0, 0), ("m", 0, 0.5), ("x", 0, 1), ("?", 1, 1), ("m", 0.5, 1)),
    "sde": (("?", 0, 0), ("W", 0, 1)),
    "oba": (("O", 0, 1), ("?", 0, 0), ("m", 0, 1), ("x", 0, 1)),
}


class Matrix(Tensor):
    """A 2x2 weight: z * W is W z for z [B, 2, *shape], so the core applies matrices without knowing it."""

    def __rmul__(self, z: Tensor) -> Tensor:  # type: ignore[override]
        return torch.einsum("ij,bj...->bi...", self.as_subclass(Tensor).to(z), z)


@dataclass(frozen=True)
class PhaseSpace:
    """dz = F z dt + G dW of z = (x, m), t in [0, 1], the same for each element (Pandey and Mandt 2023, PSLD):

        F = beta/2 [[-Gamma, 1/M], [-1, -nu]],     G G^T = beta diag(Gamma, M nu) = 2 K S,

    with the prior's covariance S = diag(1, M) and the friction K = beta/2 diag(Gamma, nu). As F S + S F^T =
    -G G^T keeps S, and m_0 ~ N(0, gamma M) is averaged out,

        E[z_t | x_0] = e^(F t) (x_0, 0),     Cov[z_t | x_0] = S + e^(F t) (diag(0, gamma M) - S) e^(F t)^T.

    A network predicts the noise eps of z_t = mean + L eps, with L the lower Cholesky factor of that
    covariance; the score is -L^(-T) eps. The defaults are the paper's for CIFAR-10, critically damped:
    (Gamma - nu)^2 = 4/M. Matrices are [2, 2] in float64.

    t_min: the last time a network was trained for.

    Raises:
        ArgumentError: a number that is not positive (Gamma may be 0), or t_min not below 1.
    """

    beta: float = 8.0
    Gamma: float = 0.01
    nu: float = 4.01
    M: float = 0.25
    gamma: float = 0.04
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("beta", "nu", "M", "gamma", "t_min"):
            positive(name, getattr(self, name))
        if finite("Gamma", self.Gamma) < 0 or self.t_min >= 1:
            raise ArgumentError(
                f"Gamma = {self.Gamma} and t_min = {self.t_min}: give Gamma >= 0 and t_min below 1"
            )

    @property
    def F(self) -> Tensor:
        return self.beta / 2 * torch.tensor([[-self.Gamma, 1 / self.M], [-1.0, -self.nu]], dtype=F64)

    @property
    def S(self) -> Tensor:
        return torch.tensor([[1.0, 0.0], [0.0, self.M]], dtype=F64)

    @property
    def K(self) -> Tensor:
        return self.beta / 2 * torch.tensor([[self.Gamma, 0.0], [0.0, self.nu]], dtype=F64)

    def mean(self, t: float | Tensor) -> Tensor:
        """e^(F t), which takes (x_0, 0) to E[z_t | x_0]; t a number or [n, 1, 1], as for the next two."""
        return torch.linalg.matrix_exp(self.F * t)

    def cov(self, t: float | Tensor) -> Tensor:
        """Cov[z_t | x_0]."""
        start = torch.tensor([[0.0, 0.0], [0.0, self.gamma * self.M]], dtype=F64)
        mean = self.mean(t)
        return self.S + mean @ (start - self.S) @ mean.mT

    def factor(self, t: float | Tensor) -> Tensor:
        """L, t > 0."""
        return torch.linalg.cholesky(self.cov(t))

    def add_noise(self, x0: Tensor, t: float, noise: Tensor) -> Tensor:
        """z_t [B, 2, *shape] from clean x0 [B, *shape] and unit normal noise [B, 2, *shape], eps's target."""
        z0 = torch.stack([x0, torch.zeros_like(x0)], 1)
        return z0 * self.mean(t).as_subclass(Matrix) + noise * self.factor(t).as_subclass(Matrix)

    def prior(self, n: int, shape: Sequence[int], seed: int | torch.Generator = 0) -> Tensor:
        """z [n, 2, *shape] at t = 1, float32; sample i is the same whatever n."""
        noise = Noise(seed_of(seed), range(whole("n", n, 1)), (2, *shape)).prior()
        return (noise * self.S.sqrt().as_subclass(Matrix)).float()


def plan_phase_space(
    process: PhaseSpace,
    method: str = "euler",
    nfe: int = 50,
    lambda_: float | None = 1.0,
    power: float = 2.0,
) -> Plan:
    """The weights of a method, 2x2 matrices, for `sample_phase_space`.

    From noise to data, dz/dt = A z + C eps with C = Q S L^(-T). The ODE has A = F, Q = K; the SDE has A = F,
    Q = 2 K. A substep s -> t = s + h moves a part P of z, all of it, x or m, the newest eps held. Plain
    (lambda_ = None) it is an Euler step. Conjugate, it is Euler's of e^((B - P A) t) z, weighed exactly:

        z_t = e^(J h) z_s + int_s^t e^(J (t - u)) (B z_s + P C(u) eps) du,   J = P A - B,   B = -lambda_ P Q.

    At lambda_ = 0 that is DDIM, exact where eps is constant. At 1, B z + P C eps vanishes on the prior, and J
    is what remains there: in the ODE x and m turning into each other. (Pandey et al. 2024, whose B is lambda_
    times 1, or times a matrix of ones, and acts on z_s alone.)

    method: "euler", all of z; "verlet", m half, x, m half: reduced velocity Verlet, which shares the first of
    its 2 evaluations between m and x, and conjugate is the paper's hybrid; "sde", all of z with its noise,
    plain it is Euler-Maruyama; "oba", friction and noise first, exactly, then m and x: reduced OBA. All have
    order 1; Verlet misses x by h^3 a step if Gamma = 0, and by Gamma h^2 otherwise.
    nfe: evaluations, the last one for the data prediction at t_min.  power: times are uniform in t^(1/power).

    Raises:
        ArgumentError: an unknown method, or too few evaluations.
    """
    if method not in WORDS:
        raise unknown("phase-space method", method, WORDS)
    size = sum(part == "?" for part, _, _ in WORDS[method])
    n = (whole("nfe", nfe, 1 + size, f"a step takes {size} and the end takes 1") - 1) // size
    low, end = process.t_min ** (1 / positive("power", power)), process.t_min
    times = [*((1 + (low - 1) * k / n) ** power for k in range(n)), end]
    lambda_ = None if lambda_ is None else finite("lambda_", lambda_)
    steps = [_step(process, WORDS[method], s, t, lambda_) for s, t in pairwise(times)]
    back = torch.linalg.inv(process.mean(end))  # (x_0, 0) = back (z - L eps)
    data = Stage((_weight(back),), (_weight(-back @ process.factor(end)),))
    steps.append(Step((Stage((1.0,), at=end), data)))
    made_for = {"process": "PhaseSpace", **asdict(process)}
    return Plan((*times, 0.0), tuple(steps), made_for, method, {"lambda_": lambda_, "power": power})


def _step(process: PhaseSpace, word: Word, s: float, t: float, lambda_: float | None) -> Step:
    """A word's substeps multiplied out: rows of the state before it, of the evaluations and of the noise."""
    parts = {part for part, _, _ in word}
    noisy, F, K, S = bool(parts & {"O", "W"}), process.F, process.K, process.S
    A, Q = (F - K if "O" in parts else F), (2 * K if noisy else K)  # O takes K for itself and so keeps S
    x, f, z, stages, asked = ONE, list[Tensor](), 0 * ONE, list[Stage](), s

    def row(at: float | None = None) -> Stage:
        return Stage((_weight(x),), tuple(_weight(w) for w in f), (_weight(z),) if noisy else (), at)

    for part, a, b in word:
        start, stop = s + a * (t - s), s + b * (t - s)
        if part == "?":
            asked = stop
            stages.append(row(asked))
            f.append(0 * ONE)
        elif part == "O":
            W = torch.linalg.matrix_exp(K * (stop - start))
            x, z = W @ x, _root(S @ (ONE - W @ W))
        else:
            W, E, N = _substep(process, PARTS[part], A, Q, (start, stop, asked), lambda_)
            x, f, z = W @ x, [W @ w for w in f], _root(N) if part == "W" else W @ z
            f[-1] = f[-1] + E
    return Step((*stages, row()), brownian=(s, t) if noisy else None)


def _substep(
    process: PhaseSpace,
    P: Tensor,
    A: Tensor,
    Q: Tensor,
    at: tuple[float, float, float],
    lambda_: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of z and eps as in `plan_phase_space`, and the noise's covariance; at: s, t and eps's time."""
    s, t, asked = at
    h, D = t - s, 2 * process.K @ process.S

    def C(u: float | Tensor) -> Tensor:
        return P @ Q @ process.S @ torch.linalg.inv(process.factor(u)).mT

    if lambda_ is None:
        return ONE + h * P @ A, h * C(asked), -h * D
    J, B = P @ (A + lambda_ * Q), -lambda_ * P @ Q
    low, high = s**0.5, t**0.5  # C grows as 1/sqrt(t) towards the data: the integrals are smooth in sqrt(t)
    v = (low + high) / 2 + (high - low) / 2 * NODES
    du, flow = (high - low) * SHARES * v, torch.linalg.matrix_exp(J * (t - v * v))
    W = torch.linalg.matrix_exp(J * h) + (du * flow).sum(0) @ B
    return W, (du * flow @ C(v * v)).sum(0), -(du * flow @ D @ flow.mT).sum(0)


def _root(cov: Tensor) -> Tensor:
    """R with R R = cov, which is singular where x has no noise of its own."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _weight(W: Tensor) -> Weight:
    """A matrix as a weight; 0 and 1 as numbers, which cost nothing."""
    if torch.equal(W, ONE):
        return 1.0
    return W.as_subclass(Matrix) if W.any() else 0.0


def sample_phase_space(
    net: Callable[[Tensor, Tensor], Tensor], z_init: Tensor, plan: Plan, seed: int | torch.Generator = 0
) -> Tensor:
    """x [B, *shape] from z_init [B, 2, *shape] at t = 1 (`PhaseSpace.prior`).

    net: net(z [B, 2, *shape], t [B]) -> eps [B, 2, *shape].

    Raises:
        SolveError: the network failed or returned NaN, with step and time.
    """

    def field(t: float, z: Tensor) -> Tensor:
        return net(z, torch.full((len(z),), t, dtype=z.dtype, device=z.device))

    noise = Noise(seed_of(seed), range(len(z_init)), z_init.shape[1:])
    with torch.no_grad():
        return run((field,), plan, z_init, noise)[0][-1][:, 0]
