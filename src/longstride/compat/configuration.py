"""What the configuration of a diffusers scheduler says of its network and of where its steps go."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError
from ..frame import conversion
from ..grid import GRIDS, RATIO_MAX
from ..guidance import limited
from ..process import EDM, VE, VP, Flow, Process

# Where the classes lay their steps: on both ends of a table, open towards data, or without a table.
CLASSES = {
    **dict.fromkeys((
        "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler",
        "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler",
    ), "both"),
    **dict.fromkeys((
        "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
        "SASolverScheduler", "UniPCMultistepScheduler",
    ), "open"),
    **dict.fromkeys(("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"), "edm"),
    **dict.fromkeys(("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"), "flow"),
}  # fmt: skip
# What is missing for the others that diffusers has.
MISSING = {
    **dict.fromkeys(
        ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler", "CMStochasticIterativeScheduler"),
        "its network is distilled for its own sampler, which is no time integration: keep that",
    ),
    **dict.fromkeys(
        ("DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"),
        "plans for pipelines run from noise to data",
    ),
    "DPMSolverSDEScheduler": "give trained_with='LMSDiscreteScheduler', which has the same settings",
    "CosineDPMSolverMultistepScheduler": "its network's times are atan(sigma), which no class here has",
    "IPNDMScheduler": "its network's times are atan(sigma/alpha), which no class here has",
}
PREDICTS = {"epsilon": "noise", "sample": "data", "v_prediction": "v", "flow_prediction": "flow"}
RAMPS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "log_snr", "use_beta_sigmas": "beta",
         "use_lu_lambdas": "log_snr"}  # fmt: skip

# What says how their solver works, or is read by pipelines: no business of the network's or the grid's.
SOLVER = {"solver_order", "solver_type", "algorithm_type", "lower_order_final", "euler_at_final",
          "predict_x0", "disable_corrector", "predictor_order", "corrector_order", "tau_func", "solver_p",
          "skip_prk_steps", "set_alpha_to_one",
          "dynamic_thresholding_ratio", "sample_max_value", "base_shift", "max_shift", "base_image_seq_len",
          "max_image_seq_len"}  # fmt: skip
UNDERSTOOD = {"num_train_timesteps", "beta_start", "beta_end", "trained_betas", "sigma_min", "sigma_max",
              "sigma_data", "rho", "clip_sample", "clip_sample_range", "steps_offset", "shift", "flow_shift",
              "rescale_betas_zero_snr", "lambda_min_clipped", "use_flow_sigmas", "shift_terminal",
              "use_dynamic_shifting", "thresholding", *RAMPS}  # fmt: skip
# Where only some values are understood: those, and what is missing for the others.
ALLOWED: dict[str, tuple[tuple[Any, ...], str]] = {
    "variance_type": ((None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned",
                       "learned_range"), "another variance is not understood"),
    "interpolation_type": (("linear",), "sigmas that are not those of the timesteps are not understood"),
    "timestep_type": (("discrete", "continuous"), "timesteps of another kind are not understood"),
    "invert_sigmas": ((False,), "flows whose time runs the other way are not understood"),
    "stochastic_sampling": ((False,), "its sampler draws noise, and no method here is that one"),
    "beta_schedule": (("linear", "scaled_linear", "squaredcos_cap_v2"), "give its table as trained_betas"),
    "timestep_spacing": (("linspace", "leading", "trailing"), "another spacing is not understood"),
    "final_sigmas_type": (("zero", "sigma_min"), "another end is not understood"),
    "sigma_schedule": (("karras", "exponential"), "another schedule is not understood"),
    "time_shift_type": (("exponential", "linear"), "another shift is not understood"),
    "prediction_type": (tuple(PREDICTS), "another prediction is not understood"),
}  # fmt: skip


def class_of(config: Mapping[str, Any]) -> str:
    """The class that a configuration belongs to: as it says, or the one with just these settings.

    The configuration of a scheduler that was never saved does not say it. Classes of the same settings that
    lay their steps alike are one to us.
    """
    name = config.get("trained_with", config.get("_class_name"))
    keys = {key for key in config if not key.startswith("_")}
    names = [name] if name else [n for n in CLASSES if keys == set(parameters(n))]
    kinds = {CLASSES.get(n) for n in names}
    if len(kinds) != 1 or None in kinds:
        missing = MISSING.get(name, f"trained_with= may name one of those that are: {', '.join(CLASSES)}")
        raise ArgumentError(
            f"the configuration of {name or 'a class that it does not name'} is not understood: {missing}"
        )
    return names[0]


@lru_cache
def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class of diffusers."""
    return inspect.signature(getattr(diffusers, name)).parameters


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument of the class that a configuration belongs to, its default where none is given.

    Raises:
        ArgumentError: a class or a setting that is not understood.
    """
    name, found = class_of(config), {}
    for key, parameter in parameters(name).items():
        value = found[key] = config.get(key, parameter.default)
        values, missing = ALLOWED.get(key, ((parameter.default,), "this setting is not understood"))
        if key not in UNDERSTOOD | SOLVER and value not in values:
            raise ArgumentError(
                f"{name} with {key} = {value!r}: {missing}; from_config(config, {key}={values[0]!r}) goes on "
                "without it"
            )
    return found


class Configuration:
    """A network and a grid, as read from the configuration of a scheduler.

    process: where the network's noise levels come from.  predicts: what it returns, as `frame.conversion`
    calls it, or "raw" for EDM's F times `sign`.  limit: what keeps the data prediction in bounds, or None.
    final: where a run ends, see `plan_sampling`.

    Raises:
        ArgumentError: a setting that is not understood, or settings that contradict each other.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.given = v = settings(config)
        self.name = class_of(config)
        self.kind = CLASSES[self.name]
        ramps = [RAMPS[key] for key in RAMPS if v.get(key)]
        self.ramp = ramps[0] if ramps else None
        self.final = "sigma_min" if v.get("final_sigmas_type") == "sigma_min" else "data"
        self.limit: Callable[[Tensor], Tensor] | None = None
        if v.get("thresholding"):
            self.limit = partial(
                limited, threshold=v["dynamic_thresholding_ratio"], largest=v["sample_max_value"]
            )
        elif v.get("clip_sample"):
            self.limit = partial(torch.clamp, min=-v["clip_sample_range"], max=v["clip_sample_range"])
        self.predicts, self.sign = PREDICTS[v.get("prediction_type", "flow_prediction")], 1.0
        self.process = self._process()
        if len(ramps) + (bool(v.get("use_flow_sigmas")) and self.name != "UniPCMultistepScheduler") > 1:
            raise ArgumentError(f"{self.name} has more than one of its grids: leave one of use_..._sigmas")
        if (self.predicts == "flow") != isinstance(self.process, Flow):
            raise ArgumentError(
                f"{self.name} with prediction_type = {v['prediction_type']!r} and use_flow_sigmas = "
                f"{v.get('use_flow_sigmas')}: flow_prediction and use_flow_sigmas go together"
            )

    def _process(self) -> Process:
        v = self.given
        if self.kind == "flow" or v.get("use_flow_sigmas"):
            return Flow()
        if self.kind == "edm":
            if self.predicts not in ("noise", "v"):
                raise ArgumentError(f"{self.name} takes prediction_type epsilon or v_prediction")
            self.ramp = {"karras": "karras", "exponential": "log_snr"}[v["sigma_schedule"]]
            sigmas = v["sigma_min"], v["sigma_max"], v["sigma_data"]
        else:
            process = self._table()
            if v.get("timestep_type") != "continuous":
                return process
            if self.predicts != "v" or self.ramp not in ("karras", "log_snr"):
                raise ArgumentError(
                    "timestep_type = 'continuous' is understood with prediction_type='v_prediction' and "
                    "use_karras_sigmas or use_exponential_sigmas"
                )
            low, high = (math.exp(-process.lambda_(t)) for t in (process.t_min, process.t_max))
            sigmas = v["sigma_min"] or low, v["sigma_max"] or high, 1.0
        # v of an x of unit variance is EDM's F with its sign changed.
        self.kind, self.sign, self.predicts = "edm", -1.0 if self.predicts == "v" else 1.0, "raw"
        return EDM(*sigmas)

    def _table(self) -> VP:
        v = self.given
        n, schedule, betas = v["num_train_timesteps"], v["beta_schedule"], v["trained_betas"]
        zero_snr = v.get("rescale_betas_zero_snr", False)
        if betas is None and n == 1000:
            if schedule == "squaredcos_cap_v2":
                return VP("cosine", discrete=True, zero_snr=zero_snr)
            low, high = (round(1000 * v[key], 12) for key in ("beta_start", "beta_end"))
            return VP(schedule, discrete=True, zero_snr=zero_snr, beta_min=low, beta_max=high)
        if betas is None:
            if schedule == "squaredcos_cap_v2":
                raise ArgumentError(f"{schedule} with {n} timesteps: give its table as trained_betas")
            power = 2 if schedule == "scaled_linear" else 1
            betas = np.linspace(v["beta_start"] ** (1 / power), v["beta_end"] ** (1 / power), n) ** power
        if len(betas) != n:
            raise ArgumentError(f"trained_betas has {len(betas)} entries where num_train_timesteps is {n}")
        return VP(discrete=True, zero_snr=zero_snr, betas=tuple(float(b) for b in betas))

    def network_time(self, t: float) -> float:
        """What the network is given for the process's t."""
        if self.kind == "edm":
            return self.process.preconditioning(t)[3]
        return t * self.given["num_train_timesteps"] if isinstance(self.process, Flow) else t

    def process_time(self, t: Tensor) -> Tensor:
        """The inverse of `network_time`, for a tensor, in float64."""
        t = t.double()
        if self.kind == "edm":
            return (4 * t).exp()
        return t / self.given["num_train_timesteps"] if isinstance(self.process, Flow) else t

    def sigma(self, t: float) -> float:
        """What diffusers calls sigma: of a flow its own, of others the noise-to-signal ratio."""
        alpha, sigma = self.process.pair(t)
        return sigma if isinstance(self.process, Flow) else sigma / alpha if alpha else math.inf

    def training_times(self) -> np.ndarray:
        """The process times of the training, from noise to data, as far as the configuration knows them."""
        if self.kind != "edm" and not isinstance(self.process, Flow):
            return np.arange(self.process.t_max, -1, -1)
        fixed = self.given.get("use_dynamic_shifting", False) is False
        return self.times(self.given["num_train_timesteps"], self.shift(None) if fixed else 1.0)

    def coefficients(self, target: str, t: float) -> tuple[float, float]:
        """(a, b) with the prediction `target` = a x + b output at t."""
        pair = self.process.pair(t)
        if self.predicts != "raw":
            return conversion(self.predicts, target, *pair)
        c_skip, c_out, _, _ = self.process.preconditioning(t)
        a, b = conversion("data", target, *pair)
        return a + b * c_skip, b * c_out * self.sign

    def prediction(self, output: Tensor, x: Tensor) -> Tensor:
        """The prediction [B, C, ...] in an output that is not of x's shape: the first half of [B, 2 C, ...]
        where the network returns its variance beside it.

        Raises:
            ArgumentError: the configuration knows of no variance, or it is another shape still.
        """
        learned = self.given.get("variance_type") in ("learned", "learned_range")
        half = output.narrow(1, 0, x.shape[1]) if output.shape[1] == 2 * x.shape[1] else output
        if learned and half.shape == x.shape:
            return half
        shapes = f"{list(output.shape)} for an x of {list(x.shape)}"
        raise ArgumentError(f"the network returned {shapes}: give step its prediction alone")

    def shift(self, mu: float | None) -> float:
        """The shift of a flow's times: fixed, or following mu.

        Raises:
            ArgumentError: it follows mu and there is none, or this is no flow.
        """
        v = self.given
        if mu is not None and not isinstance(self.process, Flow):
            raise ArgumentError(f"mu = {mu}: {self.name} has no flow whose times could shift; leave it out")
        if not v.get("use_dynamic_shifting"):
            return v.get("shift", v.get("flow_shift", 1.0))
        if mu is None:
            raise ArgumentError("use_dynamic_shifting needs set_timesteps(..., mu=), from the image's size")
        return math.exp(mu) if v["time_shift_type"] == "exponential" else mu

    def times(self, n: int, shift: float = 1.0) -> np.ndarray:
        """n process times where the class lays its steps, neither rounded nor doubled.

        Those of a flow are the ones its pipelines give: the step to clean data is as long as the others.
        """
        if self.kind == "edm":
            return self._ramped(self.process.t_max, self.process.t_min, n)
        if not isinstance(self.process, Flow):
            return self._of_table(n)
        last = 1 / n if self.ramp is None else 1 / self.given["num_train_timesteps"]
        return self.shifted(np.linspace(1, last, n), shift)

    def shifted(self, t: np.ndarray, shift: float) -> np.ndarray:
        """Times of a flow as its class changes those it is given."""
        t = t / (t + (1 - t) / shift)  # 1 stays 1
        if terminal := self.given.get("shift_terminal"):
            t = 1 - (1 - t) * (1 - terminal) / (1 - t[-1])
        if self.ramp is None:
            return t
        if self.kind == "flow":
            return self._ramped(t[0], t[-1], len(t))
        table = self._table()
        ratio = self._ratios(table, table.t_max, table.t_min, len(t))
        return ratio / (1 + ratio)

    def of_sigmas(self, sigmas: Sequence[float], shift: float) -> np.ndarray:
        """Process times of given sigmas: a flow's are shifted; a 0 at the end is the end, and no time."""
        given = np.array([float(s) for s in sigmas])
        given = given[:-1] if len(given) and given[-1] == 0 else given
        if self.kind == "edm":
            return given
        if isinstance(self.process, Flow):
            return self.shifted(given, shift)
        return np.array([self.process.time(-math.log(s)) for s in given])

    def _of_table(self, n: int) -> np.ndarray:
        v, more, process = self.given, self.kind == "open", self.process
        first = process.time(v.get("lambda_min_clipped", -math.inf))
        spacing = v.get("timestep_spacing", "linspace")
        if spacing == "linspace":
            t = np.linspace(first, 0, n + more)[:n]
        elif spacing == "trailing":
            t = first - np.arange(n) / n * (first + 1)
        else:
            offset, points = v["steps_offset"], n + more
            stride = min((first + 1) / points, (first - offset) / max(points - 1, 1))
            t = offset + stride * np.arange(more, points)[::-1]
        if self.ramp is None:
            return t
        first, last = (process.t_max, process.t_min) if more else (t[0], t[-1])
        return np.array([process.time(-math.log(q)) for q in self._ratios(process, first, last, n)])

    def _ratios(self, table: Process, first: float, last: float, n: int) -> np.ndarray:
        """n noise-to-signal ratios between two times of a table, or between the two that are given."""
        high, low = (math.exp(-table.lambda_(t)) for t in (first, last))
        return self._ramped(self.given.get("sigma_max") or high, self.given.get("sigma_min") or low, n)

    def _ramped(self, high: float, low: float, n: int) -> np.ndarray:
        assert self.ramp is not None
        high = min(high, RATIO_MAX)
        rho = {"rho": self.given.get("rho", 7.0)} if self.ramp == "karras" else {}
        # In a VE process the time is sigma, so a grid in time is a grid in sigma.
        return GRIDS[self.ramp](VE(low, high), np.linspace(0, 1, n), **rho) if n > 1 else np.array([high])
