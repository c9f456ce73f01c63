"""`PlanScheduler`: any plan and any method inside a stock diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from torch import Tensor

from ..core import combine
from ..errors import ArgumentError, unknown
from ..frame import PREDICTIONS, conversion
from ..methods import get
from ..noise import Noise, seed_of
from ..plan import Plan
from ..sampling import DEFAULT_METHOD, plan_sampling
from .calls import Call, resume, unroll
from .configuration import CLASSES, Configuration, class_of, parameters, settings

OWN = ("trained_with", "method", "options", "grid", "plan", "noise")
NOISES = ("generator", "brownian")
WIDE = (torch.float32, torch.float64)
Normals = Callable[[tuple[float, float]], Tensor]  # of a Brownian interval
Calls = list[tuple[Call, tuple[float, float] | None]]


class PlanScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # as all of diffusers' are made
    """Runs a plan, or a method of the registry, in place of the scheduler that a network came with.

    `PlanScheduler.from_config(pipe.scheduler.config, method="unipc_2")` reads what the network predicts, its
    noise levels and where the steps go; how they are taken is the method's business. num_inference_steps is
    the number of evaluations of the network, whatever the method, and `timesteps` has one entry for each,
    never rounded. The run ends at clean data, unless the configuration has final_sigmas_type="sigma_min".

    The state is alpha x_0 + sigma eps of the process: of unit variance for networks with a table of betas,
    also those that came with a scheduler in sigma = sigma/alpha. `scale_model_input` is EDM's c_in, and
    nothing for the others. Half precision goes in and out, and the state between is float32.

    Args:
        trained_with: the diffusers class whose keys `config` holds.
        method, options: see `ls.list_methods`; by default the method of `ls.sample`.
        grid: one of Longstride's, by name or ("family", {argument: value}); by default the configuration's.
        plan: a Plan, or its `to_json`, in place of the three.
        noise: where a stochastic method's noise comes from. "generator": drawn on the generator's device, a
            sequence for each sample, which depends on the initial seed and the sample's place in its batch.
            "brownian": that of `ls.sample`, which depends on the time as well and is the same on every
            device and however a step is refined; some 70 times slower to draw.

    Raises:
        ArgumentError: a configuration, method or plan that it cannot run, before anything is run.
    """

    _compatibles = list(CLASSES)  # noqa: RUF012
    timesteps: Tensor
    _asked: tuple[Any, ...] | None
    order = 1  # one entry of `timesteps` for each evaluation, whatever the order of the method

    @register_to_config
    def __init__(
        self,
        trained_with: str,
        method: str | None = None,
        options: dict[str, Any] | None = None,
        grid: str | Sequence[Any] | None = None,
        plan: dict[str, Any] | None = None,
        noise: str = "generator",
    ):
        if noise not in NOISES:
            raise unknown("noise", noise, NOISES)
        if plan is not None and (method or options or grid):
            raise ArgumentError("a plan already holds method, options and grid: leave those out")
        get(method or DEFAULT_METHOD, **(options or {}))
        self.register_to_config(**settings(self.config))
        self._reset(None)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """A scheduler for the network that a scheduler's configuration belongs to.

        kwargs: arguments of this class, and keys of the configuration that are to be others.
        """
        if not isinstance(config, Mapping):
            raise ArgumentError("give from_config a configuration, such as pipe.scheduler.config")
        name = kwargs.get("trained_with") or class_of(config)
        if isinstance(kwargs.get("plan"), Plan):
            kwargs["plan"] = kwargs["plan"].to_json()
        replaced = OWN[1:-1] if kwargs.get("plan") or kwargs.get("method") else ()  # one sampler takes over
        kept = {k: v for k, v in config.items() if not k.startswith("_") and k not in replaced}
        values = {**kept, **kwargs, "trained_with": name}
        scheduler = cls(**{k: v for k, v in values.items() if k in OWN})
        known = parameters(name)
        if strange := [k for k in kwargs if k not in (*OWN, *known)]:
            raise ArgumentError(f"{name} has no setting {strange[0]!r}; it has {', '.join(known)}")
        scheduler.register_to_config(**{k: v for k, v in values.items() if k not in OWN})
        scheduler._reset(None)
        if scheduler.config["plan"] is not None:
            plan = Plan.from_json(scheduler.config["plan"])
            scheduler._plan(scheduler._configuration, plan.nfe, None, None)
        return (scheduler, {}) if return_unused_kwargs else scheduler

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]

    @property
    def init_noise_sigma(self) -> float:
        """What unit normal noise is multiplied with to be x as the network first sees it."""
        shown = float(self._given.steps[0].stages[0].x[0]) if self._given else 1.0
        return shown * (self._configuration.process.t_max if self._configuration.kind == "edm" else 1.0)

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """Index of the evaluation that the next `step` takes, None before the first."""
        return self._first + self._done if self._running else None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Make the plan, unless it is the one that was asked for last.

        num_inference_steps: evaluations of the network.  timesteps or sigmas: one for each evaluation, in
        the network's times or as its class has them; a method that evaluates between its steps takes as
        many steps as the budget allows, along the curve through them. Where the scheduler has a plan or a
        grid of its own, they count by their number alone, as many pipelines pass some whether asked or not.
        mu: shift of a flow whose configuration has use_dynamic_shifting.

        Raises:
            ArgumentError: neither or several of them, or a budget that the plan or method cannot keep.
        """
        if timesteps is not None and sigmas is not None:
            raise ArgumentError("give set_timesteps one of timesteps and sigmas, or num_inference_steps")
        given = timesteps if sigmas is None else sigmas
        exact = None if given is None else [float(value) for value in given]
        asked = (dict(self.config), num_inference_steps, exact, sigmas is None, mu)
        if asked != self._asked:
            self._reset(self._asked_for(num_inference_steps, exact, sigmas is not None, mu))
            self._asked = asked
        self.timesteps = self.timesteps.to(device or "cpu")
        self._start(0)

    def _asked_for(self, n: int | None, given: list[float] | None, sigmas: bool, mu: float | None) -> Plan:
        configuration = Configuration(self.config)
        points = None
        if given is not None and sigmas:
            points = configuration.of_sigmas(given, configuration.shift(mu))
        elif given is not None:
            points = configuration.process_time(torch.tensor(given, dtype=torch.float64)).numpy()
        count = n if points is None else len(points)
        if count is None or n not in (None, count):
            raise ArgumentError(f"num_inference_steps = {n}, but {count} times: give one of them")
        return self._plan(configuration, count, points, mu)

    def _plan(self, c: Configuration, n: int, points: np.ndarray | None, mu: float | None) -> Plan:
        own = self.config
        if own["plan"] is not None:
            plan = Plan.from_json(own["plan"])
            plan.demand(c.process.describe())
            if plan.states > 1:
                raise ArgumentError("the plan goes on from several states: use ls.sample(x_init=state)")
            if n != plan.nfe:
                raise ArgumentError(f"the plan has {plan.nfe} evaluations: num_inference_steps={plan.nfe}")
            return plan

        def along(count: int) -> Sequence[float]:
            if points is None:
                return c.times(count, c.shift(mu)).tolist()
            return np.interp(np.linspace(0, n - 1, count), np.arange(n), points).tolist()

        def grid(process: Any, count: int) -> Sequence[float]:
            times = along(count)
            if c.final == "data" or times[-1] == process.t_min:
                return times
            return [*along(count - 1), process.t_min]

        given = own["grid"]
        named = tuple(given) if isinstance(given, list) and isinstance(given[0], str) else given
        return plan_sampling(c.process, own["method"] or DEFAULT_METHOD, n, named or grid, final=c.final,
                             **(own["options"] or {}))  # fmt: skip

    def _reset(self, plan: Plan | None) -> None:
        """Take a plan; without one, the times are those of the training."""
        self._configuration = c = Configuration(self.config)
        self._given = plan
        self._asked = None
        self._unrolled: dict[int, Calls] = {}  # by the evaluation that is the first
        self.num_inference_steps = None if plan is None else plan.nfe
        times = c.training_times() if plan is None else plan.evaluated
        self.timesteps = torch.tensor([c.network_time(t) for t in times], dtype=torch.float32)
        # Of equal times the last, where a step begins.
        self._index = {t: i for i, t in enumerate(self.timesteps.tolist())}
        end = c.process.t_end if plan is None else plan.times[-1]
        self.sigmas = torch.tensor([c.sigma(t) for t in (*times, end)])
        self._scales = [c.process.preconditioning(t)[2] for t in times] if c.kind == "edm" else None
        self._start(0)

    def _start(self, index: int) -> None:
        """Before the first call of a run that begins with this evaluation."""
        self._begin_index: int | None = None
        self._first, self._done, self._running = index, 0, False
        self._memory: dict[int, Tensor] = {}
        self._lost: Tensor | float = 0.0  # what rounding the state to half precision took from it
        self._normals: Normals | None = None
        if index not in self._unrolled:
            self._unrolled[index] = self._cut(index)
        self._calls = self._unrolled[index]

    def _cut(self, index: int) -> Calls:
        """The calls from an evaluation on, with the (a, b) of the data = a x + b output to keep in bounds."""
        c = self._configuration
        if self._given is None:
            return []

        def affine(at: float, field: int) -> tuple[float, float]:
            target = PREDICTIONS[field]
            if c.limit is None:
                return c.coefficients(target, at)
            return conversion("data", target, *c.process.pair(at))

        calls = unroll(resume(self._given, index, c.process), affine)
        return [(call, c.limit and c.coefficients("data", call.at)) for call in calls]

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin with this evaluation: x is at its time, and the steps are made anew from there.

        Raises:
            ArgumentError: the plan cannot begin there.
        """
        self._start(begin_index)
        self._begin_index = begin_index

    def _run_from(self, timestep: float | Tensor) -> None:
        """The first call of a run; without a begin index its time says where that is."""
        if self._begin_index is None:
            found = self._index.get(float(timestep))
            if self._given is None or found is None:
                raise ArgumentError(
                    f"t = {float(timestep)} is not among the timesteps: call set_timesteps, then give step "
                    "one of scheduler.timesteps after the other"
                )
            if found:
                self._start(found)
        self._running = True

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor) -> Tensor:
        """What the network is given for x: c_in x for EDM's networks, x for others."""
        if self._scales is None:
            return sample
        if not self._running:
            self._run_from(timestep)
        return sample * self._scales[self._first + self._done]

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """From the network's output at x to the x where it is evaluated next, from the last to the end.

        Args:
            model_output, sample: [B, ...], what the network returned and x.
            timestep: this entry of `timesteps`; only the first call of a run looks at it.
            eta, use_clipped_model_output: what stock pipelines pass of DDIM's arguments. The noise is the
                method's, set when the scheduler is made; a clipped data prediction is always used throughout.
            generator: one, or one for each sample, whose initial seed the noise depends on.

        Raises:
            ArgumentError: the run is over, an output of another shape, or noise asked for by eta.
        """
        if eta:
            raise ArgumentError(
                f"eta = {eta}: the noise is the method's, from_config(..., options={{'eta': {eta}}})"
            )
        if model_output.shape != sample.shape:
            model_output = self._configuration.prediction(model_output, sample)
        if not self._running:
            self._run_from(timestep)
        if self._done == len(self._calls):
            raise ArgumentError("the run is over: call set_timesteps before the next")
        (call, data), memory = self._calls[self._done], self._memory
        x, out, dtype = sample, model_output, sample.dtype
        if dtype not in WIDE:
            x, out = x.float() + self._lost, out.float()
        if data and (limit := self._configuration.limit):
            out = limit((out * data[1]).add_(x, alpha=data[0]))
        memory[call.state], memory[call.output] = x, out
        for made, terms, interval in call.rows:
            memory[made] = (
                combine(terms, (memory,)) if interval is None else self._normal(interval, x, generator)
            )
        result = memory[call.result]
        for unneeded in call.done:
            del memory[unneeded]
        self._done += 1
        if dtype not in WIDE:
            rounded = result.to(dtype)
            self._lost, result = result - rounded, rounded
        return SchedulerOutput(result) if return_dict else (result,)

    def _normal(
        self,
        interval: tuple[float, float],
        x: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None,
    ) -> Tensor:
        if self._normals is None:
            seeds, device = _seeds(generator, x)
            self._normals = (_refinable if self.config["noise"] == "brownian" else _drawn)(seeds, device, x)
        return self._normals(interval).to(x)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x_0 + sigma eps at the network's times: one for each sample, [B], or one for all.

        Any times, integer or not, of the training or of a run; each sample has its own.
        """
        t = self._configuration.process_time(torch.as_tensor(timesteps, device=original_samples.device))
        alpha, sigma = self._configuration.process.alpha_sigma(t)
        shape = (-1,) + (1,) * (original_samples.ndim - 1)
        alpha, sigma = (w.reshape(shape).to(original_samples) for w in (alpha, sigma))
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise`, as the pipelines of flows call it."""
        return self.add_noise(sample, noise, timestep)


def _seeds(
    generator: torch.Generator | Sequence[torch.Generator] | None, x: Tensor
) -> tuple[list[tuple[int, int]], torch.device]:
    """(seed, number of the sample under that seed) of each sample, and the device to draw on."""
    if generator is None:
        seed = seed_of(torch.default_generator)
        return [(seed, i) for i in range(len(x))], x.device
    if isinstance(generator, torch.Generator):
        return [(generator.initial_seed(), i) for i in range(len(x))], generator.device
    if len(generator) != len(x):
        raise ArgumentError(f"{len(generator)} generators for {len(x)} samples: give one for each")
    return [(g.initial_seed(), 0) for g in generator], generator[0].device


def _drawn(seeds: list[tuple[int, int]], device: torch.device, x: Tensor) -> Normals:
    """One sequence of normals for each sample; SeedSequence keeps it apart from the one that made x."""
    own = [np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] for seed in seeds]
    generators = [torch.Generator(device).manual_seed(int(seed)) for seed in own]

    def normals(interval: tuple[float, float]) -> Tensor:
        draw = partial(torch.randn, x.shape[1:], dtype=x.dtype, device=device)
        return torch.stack([draw(generator=generator) for generator in generators])

    return normals


def _refinable(seeds: list[tuple[int, int]], device: torch.device, x: Tensor) -> Normals:
    noises = [Noise(seed, [i], x.shape[1:]) for seed, i in seeds]
    return lambda interval: torch.cat([noise.increment(*interval) for noise in noises])
