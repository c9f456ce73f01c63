"""What the samples of a data set are: an equation, its starts, the times saved, and how it is solved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..equal_steps.pace import Pace
from ..equal_steps.rollout import Rollout, Stand
from ..equal_steps.stretches import Stretches
from ..errors import ArgumentError, finite, positive
from ..integrate import chosen, seen, solve
from ..noise import Noise
from ..processes import device
from ..spectral import Channel, Chebyshev, Fourier
from ..systems import PDE, get
from .store import DIVERGED, FIRST, FORMAT, NAMES, REACHED, Layout

Starts = Callable[[Sequence[int], int], Tensor]


@dataclass(frozen=True)
class Recipe:
    """What samples are: an equation, its starts, times to save, and how it is solved between them.

    how: {"dt": ...} of equal steps, or {"rtol": ..., "atol": ...}.  vary: parameters that differ from sample
    to sample, uniform between two values.
    """

    pde: PDE
    starts: Starts
    seed: int
    times: tuple[float, ...]
    method: str
    how: Mapping[str, float]
    dtype: str
    vary: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def drawn(self, samples: Sequence[int]) -> dict[str, Tensor]:
        """The parameters that samples differ in, [B] each."""
        noise = Noise(self.seed, samples, ())
        bounds = enumerate(self.vary.items())
        return {name: low + (high - low) * noise.uniform(n) for n, (name, (low, high)) in bounds}

    def equation(self, samples: Sequence[int]) -> PDE:
        """Of these samples."""
        if not self.vary:
            return self.pde
        found = get(self.pde.name, **{**self.pde.parameters, **self.drawn(samples)})
        assert isinstance(found, PDE)
        return found

    def batch(self, samples: Sequence[int], show: Callable[[int], Any]) -> tuple[Tensor, Tensor]:
        """u [B, T, *shape] as on disk, NaN from where a sample is not finite, and the status [B].

        show: called after each saved time with how many there have been.
        """
        x0 = self.start(samples)
        out = torch.full(
            (len(x0), len(self.times), *x0.shape[1:]), math.nan, dtype=getattr(torch, self.dtype)
        )
        alive = torch.ones(len(x0), dtype=torch.bool)
        with torch.no_grad():
            for j, x in enumerate(self._frames(self.equation(samples), x0)):
                frame = x.to("cpu", out.dtype)
                alive &= frame.flatten(1).isfinite().all(1)
                if not alive.any():
                    break
                out[alive, j] = frame[alive]
                show(j + 1)
        return out, torch.where(alive, REACHED, DIVERGED).to(torch.int8)

    def start(self, samples: Sequence[int]) -> Tensor:
        """Fields [B, *shape] of these samples at the first time.

        Raises:
            ArgumentError: the function that makes them gave something else.
        """
        x0, found = self.pde.x0, self.starts(samples, self.seed)
        if tuple(found.shape) != (len(samples), *x0.shape[1:]) or (
            found.is_complex() and not x0.is_complex()
        ):
            raise ArgumentError(
                f"starts of {len(samples)} samples are {found.dtype}, {tuple(found.shape)}: as x0 of the "
                f"equation they should be {x0.dtype}, {(len(samples), *x0.shape[1:])}"
            )
        return found.to(device() or x0.device, x0.dtype)

    def _frames(self, pde: PDE, x0: Tensor) -> Iterator[Tensor]:
        if "dt" not in self.how:
            t = (self.times[0], self.times[-1])
            how: dict[str, Any] = {"method": self.method, "save_at": self.times, **self.how}
            yield from solve(pde, x0, t=t, **how).x
            return
        view, inner = seen(pde, x0)
        u = view.flat(x0)
        pace = Pace(inner, chosen(self.method), u) if self.vary else self._pace
        run, stand = Rollout(inner, pace, self._steps), Stand(0, 0, (u,))
        yield x0
        for _ in self.times[1:]:  # nobody looks whether they are finite: some may not be, the others go on
            stand = run.go(stand, self._steps.steps // (len(self.times) - 1))
            yield view.nest(run.state(stand))

    @cached_property
    def _steps(self) -> Stretches:
        """As many to each saved time."""
        start, span, frames = self.times[0], self.times[-1] - self.times[0], len(self.times) - 1
        steps = frames * math.ceil(span / frames / self.how["dt"] - 1e-9)
        return Stretches.repeated(start, span / steps, steps)

    @cached_property
    def _pace(self) -> Pace:
        """Written once for all batches."""
        view, inner = seen(self.pde, self.pde.x0)
        return Pace(inner, chosen(self.method), view.flat(self.start([0])))

    def settings(self) -> dict[str, Any]:
        """All that the samples depend on, as JSON has it."""
        from .. import __version__

        pde, space = self.equation([0]), grid(self.pde)
        first, varied = self.start([0]), {k: list(v) for k, v in self.vary.items()}
        _, inner = seen(pde, first)
        rate = space.leave(inner.rate(torch.zeros((), dtype=first.dtype.to_real()), space.enter(first)))
        return {
            "format": FORMAT,
            "longstride": __version__,
            "system": pde.name or "custom",
            "parameters": {**self.pde.parameters, **varied},
            "points": list(space.n),
            "length": list(space.length),
            "method": self.method,
            **self.how,
            "from": self.times[0],
            "until": self.times[-1],
            "saved": len(self.times),
            "starts": getattr(self.starts, "__name__", str(self.starts)),
            "seed": self.seed,
            "precision": NAMES[self.pde.x0.dtype.to_real()],
            "dtype": self.dtype,
            # What was asked for may be functions: what they say of the first sample tells them apart.
            FIRST: {"rms": _rms(first), "rms of its rate": _rms(rate)},
        }

    def layout(self, batch: int) -> Layout:
        space, fields = grid(self.pde), self.pde.x0.shape[1 : -grid(self.pde).dim]
        axes = dict(zip("xyz", (points.flatten().tolist() for points in space.x), strict=False))
        names = (
            list(self.pde.labels)
            if len(self.pde.labels) == sum(fields)
            else list(map(str, range(sum(fields))))
        )
        named = {"field": names} if fields else {}
        shape = (len(self.times), *self.pde.x0.shape[1:])
        coordinates = {"time": list(self.times), **named, **axes}
        return Layout(shape, tuple(coordinates), self.dtype, coordinates, tuple(self.vary), batch)


def checked(pde: PDE, vary: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """What varies, if it can.

    Raises:
        ArgumentError: what is no real parameter of a registered equation, or does not take one value for each
            sample; values that do not rise; an equation whose parameters are of several samples already.
    """
    if any(isinstance(value, Tensor) and value.ndim for value in pde.parameters.values()):
        raise ArgumentError(
            f"{pde.name} has parameters of several samples: give one value, or a range to vary"
        )
    bounds = {}
    for name, (low, high) in sorted(vary.items()):
        if not isinstance(pde.parameters.get(name), float):
            real = [k for k, v in pde.parameters.items() if isinstance(v, float)]
            can = f"of {pde.name}, {', '.join(real) or 'nothing'} can"
            own = "parameters are those of registered equations, see docs/systems.md"
            raise ArgumentError(f"{name} cannot vary: {can if pde.name else own}")
        if not finite(name, low) < finite(name, high):
            raise ArgumentError(f"{name} = {low}, {high}: two rising values")
        bounds[name] = (float(low), float(high))
    for end in range(2) if vary else ():  # the equation checks what lies between
        values = {k: torch.tensor([v[end]], dtype=torch.float64) for k, v in bounds.items()}
        get(pde.name, **{**pde.parameters, **values})
    return bounds


def grid(pde: PDE) -> Fourier | Chebyshev | Channel:
    """The space of an equation, if it has points on axes.

    Raises:
        ArgumentError: another space.
    """
    if not isinstance(pde.space, Fourier | Chebyshev | Channel):
        raise ArgumentError(f"data sets are of fields on axes, not on a {type(pde.space).__name__}")
    return pde.space


def saved_times(start: float, until: float, every: float | None) -> tuple[float, ...]:
    """start, start + every, ..., until.

    Raises:
        ArgumentError: not a whole number of them, or none.
    """
    span = positive("until - start", until - start)
    every = positive("save_every", span / 100 if every is None else every)
    n = round(span / every)
    if n < 1 or abs(n * every - span) > 1e-9 * span:
        near = [f"{start + m * every:g}" for m in (math.floor(span / every), math.ceil(span / every)) if m]
        raise ArgumentError(
            f"{until - start:g} is no multiple of save_every = {every:g}: take until = {' or '.join(near)}"
        )
    return tuple(start + span * j / n for j in range(n + 1))


def _rms(x: Tensor) -> float:
    """To six digits, which do not depend on the machine."""
    return float(f"{float(x.abs().square().mean().sqrt()):.6g}")
