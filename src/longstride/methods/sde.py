"""Steps of stochastic differential equations, dx = f dt + g dW, one function or one table each.

What g is multiplied by in a step, W, the space-time Levy area H and iterated integrals made of them, is
worked out for many steps at once (`Scheme.noise`). The step itself, `step(eq, s, t, h, state, z)`, goes from
time s to t = s + h; h is a number, or a tensor beside the state where samples have steps of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ArgumentError, unknown

KINDS = ("additive", "diagonal", "scalar", "general")
INTERPRETATIONS = ("ito", "stratonovich")

State = tuple[Tensor, ...]
Size = Any  # float | Tensor


class Equation(Protocol):
    """What a step asks of a problem.

    push: x + g z, summed over the columns of g where it has some.  slope: g and g'g; with I [B, m, m]
    sum_ij g_j' g_i I_ij.
    """

    def f(self, t: Tensor, x: Tensor) -> Tensor: ...

    def g(self, t: Tensor, x: Tensor) -> Tensor: ...

    def push(self, x: Tensor, g: Tensor, z: Tensor) -> Tensor: ...

    def slope(self, t: Tensor, x: Tensor, I: Tensor | None = None) -> tuple[Tensor, Tensor]: ...  # noqa: E741


def _alone(ito: bool, h: Size, W: Tensor, H: Tensor | None) -> State:
    return (W,)


@dataclass(frozen=True)
class Scheme:
    """A method: orders is its strong order for each kind of noise it is for, evaluations those of f and g.

    interpretations: of the integral. With additive noise all are one. area: whether it needs H. pairs:
    whether it needs the areas A [B, m, m] of pairs of motions, which `noise` then gets in place of H.
    start: what it carries beside x, made at the start; it then costs one evaluation of each.
    """

    step: Callable[[Equation, Tensor, Tensor, Size, State, State], State]
    orders: dict[str, float]
    interpretations: tuple[str, ...]
    evaluations: tuple[int, int]
    reference: str
    area: bool = False
    pairs: bool = False
    noise: Callable[[bool, Size, Tensor, Tensor | None], State] = _alone
    start: Callable[[Equation, Tensor, Tensor], State] = lambda eq, t, x: (x,)
    reversible: bool = False

    def fits(self, noise: str, interpretation: str) -> bool:
        return noise in self.orders and (noise == "additive" or interpretation in self.interpretations)


def drift(x: Tensor, f: Tensor, h: Size) -> Tensor:
    """x + h f."""
    return torch.addcmul(x, f, h) if isinstance(h, Tensor) else torch.add(x, f, alpha=h)


def _between(s: Tensor, t: Tensor, c: float) -> Tensor:
    return s if c == 0 else t if c == 1 else torch.lerp(s, t, c)


def euler_maruyama(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """x + h f + g W."""
    (x,) = state
    return (eq.push(drift(x, eq.f(s, x), h), eq.g(s, x), z[0]),)


def _double(ito: bool, h: Size, W: Tensor, H: Tensor | None) -> State:
    """W, and the iterated integral of W by itself."""
    return W, (W * W - h) / 2 if ito else W * W / 2


def milstein(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """x + h f + g W + g'g (W^2 - h)/2, W^2/2 in Stratonovich's sense."""
    (x,) = state
    g, slope = eq.slope(s, x)
    return (eq.push(eq.push(drift(x, eq.f(s, x), h), g, z[0]), slope, z[1]),)


def _iterated(ito: bool, h: Size, W: Tensor, A: Tensor | None) -> State:
    """W, and the iterated integrals I_ij of W_i by W_j: (W_i W_j - delta_ij h)/2 + A_ij, without h in
    Stratonovich's sense.
    """
    assert A is not None
    I = W[..., :, None] * W[..., None, :] / 2 + A  # noqa: E741
    return W, (I - h[..., None] / 2 * torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) if ito else I)


def milstein_levy(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """x + h f + sum_j g_j W_j + sum_ij g_j' g_i I_ij: Milstein's for noise whose columns do not commute."""
    (x,), (W, I) = state, z  # noqa: E741
    g, slope = eq.slope(s, x, I)
    return (eq.push(drift(x, eq.f(s, x), h), g, W) + slope,)


def _platen_noise(ito: bool, h: Size, W: Tensor, H: Tensor | None) -> State:
    W, twice = _double(ito, h, W, H)
    second = twice / h**0.5
    return W - second, second


def platen(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """Milstein's with g'g = (g(x + h f + sqrt(h) g) - g)/sqrt(h).

    What that leaves out is multiplied by W^2 - h, which is 0 on the average; W^2 is not.
    """
    (x,) = state
    f, g = eq.f(s, x), eq.g(s, x)
    there = drift(x, f, h)
    ahead = eq.g(s, drift(there, g, h**0.5))
    return (eq.push(eq.push(there, g, z[0]), ahead, z[1]),)


def heun(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """The trapezium of both ends, the end by Euler's step."""
    (x,), (W,) = state, z
    f, g = eq.f(s, x), eq.g(s, x)
    y = eq.push(drift(x, f, h), g, W)
    return (eq.push(drift(x, f + eq.f(t, y), h / 2), g + eq.g(t, y), W / 2),)


def midpoint(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """f and g in the middle, which is half of Euler's step away."""
    (x,), (W,) = state, z
    y, m = eq.push(drift(x, eq.f(s, x), h / 2), eq.g(s, x), W / 2), _between(s, t, 0.5)
    return (eq.push(drift(x, eq.f(m, y), h), eq.g(m, y), W),)


def reversible_heun(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """y' = 2x - y + h f + g W, then x by the trapezium of f and g at y and y'.

    f and g are kept for the next step. With h and W of the other sign the same step goes back, exactly. The
    order with noise that depends on x is what is proven: linear equations show 1, others not even 0.5 where
    the difference of x and y, which nothing damps, grows large.
    """
    (x, y, f, g), (W,) = state, z
    y = eq.push(drift(torch.sub(2 * x, y), f, h), g, W)
    f1, g1 = eq.f(t, y), eq.g(t, y)
    return eq.push(drift(x, f + f1, h / 2), g + g1, W / 2), y, f1, g1


def _mean(ito: bool, h: Size, W: Tensor, H: Tensor | None) -> State:
    """The means of W - W(s) and of W(t) - W over the step, which add up to W; then W and H."""
    assert H is not None
    return W / 2 + H, W / 2 - H, W, H


def sea(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """Euler's step with f at the mean of the path over it (shifted Euler)."""
    (x,), (before, after, *_) = state, z
    g = eq.g(s, x)
    f = eq.f(s, eq.push(x, g, before))
    return (eq.push(eq.push(drift(x, f, h), g, before), eq.g(t, x), after),)


def shark(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """y = x + g H; f at y and at y + 5/6 (h f + g W), with weights 2/5 and 3/5 (shifted Ralston)."""
    (x,), (before, after, W, H) = state, z
    g = eq.g(s, x)
    y = eq.push(x, g, H)
    f = eq.f(s, y)
    f1 = eq.f(_between(s, t, 5 / 6), eq.push(drift(y, f, h * (5 / 6)), g, W * (5 / 6)))
    end = drift(drift(x, f, h * 0.4), f1, h * 0.6)
    return (eq.push(eq.push(end, g, before), eq.g(t, x), after),)


def sra1(eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
    """f at x and at x + 3/4 h f + 3/2 g (W/2 + H), with weights 1/3 and 2/3."""
    (x,), (before, after, *_) = state, z
    g1 = eq.g(t, x)
    f = eq.f(s, x)
    f1 = eq.f(_between(s, t, 0.75), eq.push(drift(x, f, h * 0.75), g1, before * 1.5))
    end = drift(drift(x, f, h / 3), f1, h * (2 / 3))
    return (eq.push(eq.push(end, eq.g(s, x), before), g1, after),)


@dataclass(frozen=True)
class SRI:
    """Roessler's Runge-Kutta methods of strong order 1.5 for diagonal or scalar noise, Ito's sense.

        X_i = x + sum_j A0_ij h f(c0_j, X_j) + B0_ij (W/2 + H) g(c1_j, Y_j)
        Y_i = x + sum_j A1_ij h f(c0_j, X_j) + B1_ij sqrt(h) g(c1_j, Y_j)
        x1 = x + sum_i alpha_i h f(c0_i, X_i) + sum_i z_i g(c1_i, Y_i)
        z_i = b1_i W + b2_i I_11/sqrt(h) + b3_i (W/2 + H) + b4_i I_111/h,

    I_11 = (W^2 - h)/2, I_111 = (W^3 - 3hW)/6. f at equal arguments is evaluated once.
    """

    c0: tuple[float, ...]
    c1: tuple[float, ...]
    A0: tuple[tuple[float, ...], ...]
    A1: tuple[tuple[float, ...], ...]
    B0: tuple[tuple[float, ...], ...]
    B1: tuple[tuple[float, ...], ...]
    alpha: tuple[float, ...]
    b: tuple[tuple[float, ...], ...]

    def noise(self, ito: bool, h: Size, W: Tensor, H: Tensor | None) -> State:
        assert H is not None
        mean, square = W / 2 + H, W * W
        parts = (W, (square - h) / (2 * h**0.5), mean, W * (square - 3 * h) / (6 * h))
        return mean, *(sum_of(row, parts) for row in zip(*self.b, strict=True))

    def step(self, eq: Equation, s: Tensor, t: Tensor, h: Size, state: State, z: State) -> State:
        (x,), (mean, *weights) = state, z
        root, end = h**0.5, x
        fs: list[Tensor | None] = []
        gs: list[Tensor] = []
        known: dict[Any, Tensor] = {}
        for i in range(len(self.c0)):
            argument = self.c0[i], self.A0[i], self.B0[i]
            if i in self.drifts and argument not in known:
                at = self._moved(x, self.A0[i], fs, h)
                for b, g in zip(self.B0[i], gs, strict=False):
                    at = eq.push(at, g, mean * b) if b else at
                known[argument] = eq.f(_between(s, t, self.c0[i]), at)
            fs.append(known.get(argument))
            at = self._moved(self._moved(x, self.A1[i], fs, h), self.B1[i], gs, root)
            gs.append(eq.g(_between(s, t, self.c1[i]), at))
            end = eq.push(end, gs[i], weights[i])
        return (self._moved(end, self.alpha, fs, h),)

    @staticmethod
    def _moved(x: Tensor, row: Sequence[float], terms: Sequence[Tensor | None], h: Size) -> Tensor:
        for a, term in zip(row, terms, strict=False):
            if a and term is not None:
                x = drift(x, term, a * h)
        return x

    @property
    def drifts(self) -> tuple[int, ...]:
        """Stages at which f is wanted."""
        return tuple(i for i, column in enumerate(zip(self.alpha, *self.A1, strict=True)) if any(column))

    @property
    def evaluations(self) -> tuple[int, int]:
        return len({(self.c0[i], self.A0[i], self.B0[i]) for i in self.drifts}), len(self.c1)


def sum_of(weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    first, *rest = ((w, part) for w, part in zip(weights, parts, strict=True) if w)
    out = first[0] * first[1]
    for w, part in rest:
        out = torch.add(out, part, alpha=w)
    return out


_0 = (0.0,) * 4
SRI1W1 = SRI(
    c0=(0, 3 / 4, 0, 0), c1=(0, 1 / 4, 1, 1 / 4),
    A0=(_0, (3 / 4, 0, 0, 0), _0, _0),
    A1=(_0, (1 / 4, 0, 0, 0), (1, 0, 0, 0), (0, 0, 1 / 4, 0)),
    B0=(_0, (3 / 2, 0, 0, 0), _0, _0),
    B1=(_0, (1 / 2, 0, 0, 0), (-1, 0, 0, 0), (-5, 3, 1 / 2, 0)),
    alpha=(1 / 3, 2 / 3, 0, 0),
    b=((-1, 4 / 3, 2 / 3, 0), (-1, 4 / 3, -1 / 3, 0), (2, -4 / 3, -2 / 3, 0), (-2, 5 / 3, -2 / 3, 1)),
)  # fmt: skip
SRI2W1 = SRI(
    c0=(0, 1, 1 / 2, 0), c1=(0, 1 / 4, 1, 1 / 4),
    A0=(_0, (1, 0, 0, 0), (1 / 4, 1 / 4, 0, 0), _0),
    A1=(_0, (1 / 4, 0, 0, 0), (1, 0, 0, 0), (0, 0, 1 / 4, 0)),
    B0=(_0, _0, (1, 1 / 2, 0, 0), _0),
    B1=(_0, (-1 / 2, 0, 0, 0), (1, 0, 0, 0), (2, -1, 1 / 2, 0)),
    alpha=(1 / 6, 1 / 6, 2 / 3, 0),
    b=((-1, 4 / 3, 2 / 3, 0), (1, -4 / 3, 1 / 3, 0), (2, -4 / 3, -2 / 3, 0), (-2, 5 / 3, -2 / 3, 1)),
)  # fmt: skip

ITO, STRATONOVICH = INTERPRETATIONS
ROUGH = {"additive": 1.0, "diagonal": 0.5, "scalar": 0.5, "general": 0.5}
COMMUTING = {"diagonal": 1.0, "scalar": 1.0}
EVEN = {"additive": 1.0, **COMMUTING, "general": 0.5}
SMOOTH = {"diagonal": 1.5, "scalar": 1.5}

SCHEMES = {
    "euler_maruyama": Scheme(euler_maruyama, ROUGH, (ITO,), (1, 1), "Maruyama 1955"),
    "milstein": Scheme(milstein, COMMUTING, INTERPRETATIONS, (1, 1), "Milstein 1974", noise=_double),
    "milstein_levy": Scheme(milstein_levy, {"general": 1.0}, INTERPRETATIONS, (1, 1),
                            "Milstein 1974; areas: Foster and Habermann 2023", pairs=True, noise=_iterated),
    "platen": Scheme(platen, COMMUTING, (ITO,), (1, 2), "Kloeden and Platen 1992, 11.1",
                     noise=_platen_noise),
    "heun": Scheme(heun, EVEN, (STRATONOVICH,), (2, 2), "Ruemelin 1982"),
    "midpoint": Scheme(midpoint, EVEN, (STRATONOVICH,), (2, 2), "Kloeden and Platen 1992"),
    "reversible_heun": Scheme(reversible_heun, ROUGH, (STRATONOVICH,), (1, 1), "Kidger et al. 2021",
                              start=lambda eq, t, x: (x, x, eq.f(t, x), eq.g(t, x)), reversible=True),
    "sri1w1": Scheme(SRI1W1.step, SMOOTH, (ITO,), SRI1W1.evaluations, "Roessler 2010, SRI1W1", True,
                     noise=SRI1W1.noise),
    "sri2w1": Scheme(SRI2W1.step, SMOOTH, (ITO,), SRI2W1.evaluations, "Roessler 2010, SRI2W1", True,
                     noise=SRI2W1.noise),
    "sea": Scheme(sea, {"additive": 1.0}, INTERPRETATIONS, (1, 2), "Foster et al. 2024, SEA", True,
                  noise=_mean),
    "sra1": Scheme(sra1, {"additive": 1.5}, INTERPRETATIONS, (2, 2), "Roessler 2010, SRA1", True,
                   noise=_mean),
    "shark": Scheme(shark, {"additive": 1.5}, INTERPRETATIONS, (2, 2), "Foster et al. 2024, ShARK", True,
                    noise=_mean),
}  # fmt: skip
DEFAULTS = ("shark", "sri1w1", "heun", "euler_maruyama")  # the first that fits


def scheme(name: str | None, noise: str, interpretation: str) -> tuple[str, Scheme]:
    """The method of this name, or the default one; refused where it is for another equation."""
    if name is None:
        name = next(n for n in DEFAULTS if SCHEMES[n].fits(noise, interpretation))
    if name not in SCHEMES:
        raise unknown("method of an SDE", name, SCHEMES)
    found = SCHEMES[name]
    if not found.fits(noise, interpretation):
        fitting = [f"{n} ({s.orders[noise]})" for n, s in SCHEMES.items() if s.fits(noise, interpretation)]
        hint = " (`problem.to(...)` converts the equation)"
        if noise not in found.orders:
            hint = f"; what g returns is said by ls.SDE(f, g, noise={next(iter(found.orders))!r})"
        raise ArgumentError(
            f"method {name!r} is for {' or '.join(found.interpretations)}, {', '.join(found.orders)} noise, "
            f"not for {interpretation}, {noise}; of these, with strong orders: {', '.join(fitting)}{hint}"
        )
    return name, found
