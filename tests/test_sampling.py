"""What users lean on: guidance, batching, callbacks, plans as files, errors that say what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.models import mixture
from longstride.models.store import write_tensors

F64 = torch.float64
EDM = ls.process.EDM()


def labelled(calls: list[int] | None = None) -> ls.Denoiser:
    """Data at y, and at 10 for no label: D = (y + x/sigma^2)/(1 + 1/sigma^2)."""

    def net(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if calls is not None:
            calls.append(len(x))
        centre = torch.full((len(x), 1), 10.0) if y is None else y[:, None]
        return (centre.to(x) * t[:, None] ** 2 + x) / (t[:, None] ** 2 + 1)

    return ls.Denoiser(net, EDM, shape=(2,), null={"y": 10.0})


def test_guidance_extrapolates_from_the_null_condition() -> None:
    """Here D is affine in y, so guidance w samples from the centre 10 + w (y - 10)."""
    y = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    x = ls.prior(labelled(), 3, dtype=F64)
    guided = ls.sample(labelled(), x_init=x, nfe=6, cond={"y": y}, guidance=2.5)
    moved = ls.sample(labelled(), x_init=x, nfe=6, cond={"y": 10 + 2.5 * (y - 10)})
    assert torch.allclose(guided, moved, atol=1e-12)
    plain = ls.sample(labelled(), x_init=x, nfe=6, cond={"y": y}, guidance=1.0)
    assert torch.equal(plain, ls.sample(labelled(), x_init=x, nfe=6, cond={"y": y}))


def test_a_guided_evaluation_is_one_nfe_and_two_network_calls() -> None:
    calls: list[int] = []
    stats = ls.Stats()
    cond = {"y": torch.ones(5)}
    ls.sample(labelled(calls), 5, nfe=4, cond=cond, guidance=3.0, stats=stats)
    assert (stats.nfe, stats.network_calls) == (4, 8)
    assert calls == [10] * 4  # both halves travel in one batch


@pytest.mark.parametrize("y", [3.0, torch.tensor(3.0), torch.tensor([3.0]), [3.0] * 5, np.full(5, 3.0)])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_condition_may_be_a_number_a_list_or_an_array(y: object, guidance: float) -> None:
    tensor = ls.sample(labelled(), 5, nfe=3, cond={"y": torch.full((5,), 3.0)}, guidance=guidance)
    given = ls.sample(labelled(), 5, nfe=3, cond={"y": y}, guidance=guidance, batch=2)
    assert torch.allclose(given, tensor, atol=1e-5)


def test_fields_guide_towards_a_number_too() -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    one, many = (labelled().fields({"y": y}, 2.0)[0](1.0, x) for y in (3.0, torch.full((3,), 3.0)))
    assert torch.equal(one, many)


def test_labels_are_dealt_out_with_the_batch() -> None:
    y = torch.arange(7.0)
    whole = ls.sample(labelled(), 7, nfe=5, cond={"y": y}, batch=7)
    assert torch.allclose(whole, ls.sample(labelled(), 7, nfe=5, cond={"y": y}, batch=3), atol=1e-5)


def test_callbacks_see_every_step_and_final_sigma_min_stops_there() -> None:
    model = mixture(dim=2)
    seen: list[tuple[int, float]] = []
    plan = ls.plan_sampling(EDM, "heun", 9, final="sigma_min")
    ls.sample(model, 2, plan=plan, callback=lambda n, t, x: seen.append((n, t)))
    assert seen == list(enumerate(plan.times[1:]))
    assert plan.times[-1] == EDM.sigma_min
    assert plan.nfe == 9


def test_a_guess_at_the_reference_is_converged() -> None:
    model = mixture(dim=2, components=2)
    x = ls.prior(model, 8, dtype=F64)
    fine, coarse = (ls.reference(model, x, nfe=nfe) for nfe in (800, 400))
    assert ls.metrics.endpoint_error(coarse, fine) < 1e-5
    rough = ls.sample(model, x_init=x, method="ddim", nfe=400, grid="log_snr")
    assert ls.metrics.endpoint_error(coarse, fine) < 0.01 * ls.metrics.endpoint_error(rough, fine)


def test_x_init_is_left_as_it_was() -> None:
    model = mixture(dim=2)
    for method in ("ddim", "heun", "unipc_2", "bdia"):
        x = ls.prior(model, 2)
        before = x.clone()
        ls.sample(model, x_init=x, method=method, nfe=5)
        assert torch.equal(x, before)


def test_one_seed_one_noise_whatever_n() -> None:
    model = mixture(dim=2)
    assert torch.equal(ls.prior(model, 8, seed=4)[:3], ls.prior(model, 3, seed=4))
    generators = [torch.Generator().manual_seed(9) for _ in range(2)]
    a, b = (ls.sample(model, 3, nfe=3, seed=g) for g in generators)
    assert torch.equal(a, b)
    assert not torch.equal(a, ls.sample(model, 3, nfe=3, seed=generators[0]))


def test_nan_is_named_by_step_and_time() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, float("nan")) if t[0] < 1 else x * 0

    model = ls.Denoiser(net, EDM, shape=(2,))
    with pytest.raises(ls.SolveError, match=r"ddim, step 4 of 6.*NaN") as error:
        ls.sample(model, 2, method="ddim", nfe=6, grid=[80.0, 20.0, 5.0, 0.9, 0.3, 0.1])
    assert not isinstance(error.value, ls.ArgumentError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "dpmp_2m"}, "did you mean dpmpp_2m"),
        ({"grid": "karas"}, "did you mean karras"),
        ({"grid": ("karras", {"roh": 3})}, "takes rho"),
        ({"nfe": 0}, "at least one evaluation"),
        ({"method": "heun", "eta": 1.0}, "no option 'eta'"),
        ({"grid": [80.0, 90.0, 1.0]}, "outside|fall"),
        ({"grid": [80.0, 1.0, 1.0]}, "fall"),
        ({"grid": [80.0, 1.0, 1.0 - 1e-12]}, "float32"),
        ({"grid": [80.0, float("nan"), 1.0]}, "outside"),
        ({"grid": []}, "empty"),
        ({"n": 0}, "at least one sample"),
        ({"guidance": 2.0}, "null condition"),
        ({"final": "zero"}, "data or sigma_min"),
        ({"t_start": 5.0}, "give x_init"),
        ({"grid": [1.0, 0.5, 0.1]}, "give x_init"),
        ({"nfe": 5.5}, "nfe = 5.5: it must be a whole number"),
        ({"nfe": float("nan")}, "whole number"),
        ({"n": "4"}, "whole number"),
        ({"batch": 0}, "at least 1"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": None}, "whole number"),
        ({"method": 5}, "unknown method"),
        ({"method": "ddim", "eta": "x"}, "finite number"),
        ({"method": "dpmpp_2m_sde", "eta": float("nan")}, "finite number"),
        ({"method": "dpmpp_2m_sde", "eta": -1.0}, "eta = -1.0"),
        ({"method": "dpmpp_2m_sde", "eta": 30.0}, "overflow"),
        ({"method": "bdia", "gamma": 0}, "positive"),
        ({"method": "bdia", "prediction": "xyz"}, "prediction = 'xyz'"),
        ({"method": "unipc_2", "lower_order_final": "no"}, "True or False"),
        ({"grid": ("karras", {"rho": 0})}, "positive"),
        ({"grid": ("karras", {"rho": "x"})}, "finite number"),
        ({"grid": ("karras", {"open": 3})}, "True or False"),
        ({"grid": ("karras", None)}, "mapping"),
        ({"grid": 5}, "falling times"),
        ({"grid": ["a", "b"]}, "falling times"),
        ({"t_start": "x", "x_init": torch.zeros(1, 2), "n": None}, "finite number"),
        ({"x_init": torch.zeros(2, 2, dtype=torch.int64), "n": None}, "tensor of floats"),
        ({"x_init": [[0.0, 0.0]], "n": None}, "tensor of floats"),
        ({"x_init": torch.zeros(0, 2), "n": None}, "n at least 1"),
        ({"dtype": torch.int64}, "floating"),
        ({"dtype": "float64"}, "floating"),
        ({"device": "nonsense"}, "device = 'nonsense'"),
        ({"plan": "six.json"}, "Plan.load"),
        ({"plan": "six", "final": "sigma_min"}, "holds final"),
        ({"cond": torch.zeros(2)}, "mapping by name"),
        ({"cond": {"y": [1, 2, 3]}}, "3 entries for 2 samples"),
        ({"nfe": 5, "grid": [80.0, 1.0]}, "2 times where 5"),
        ({"x_init": torch.zeros(2, 3), "n": None}, "where the model wants"),
        ({"cond": {"y": torch.zeros(5)}}, "5 entries for 2 samples"),
        ({"plan": "six", "nfe": 6}, "holds nfe: leave those out"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments: dict, message: str) -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the network was called")

    model = ls.Denoiser(net, EDM, shape=(2,))
    if arguments.get("plan") == "six":
        arguments = {**arguments, "plan": ls.plan_sampling(EDM, "ddim", 6)}
    with pytest.raises(ls.ArgumentError, match=message):
        ls.sample(model, **{"n": 2, **arguments})


def test_one_step_from_pure_noise_to_data_is_the_data_prediction() -> None:
    model = mixture(dim=2, process=ls.process.Flow())
    x = ls.prior(model, 3)
    for grid in ([1.0, 0.0], [1.0]):
        assert torch.equal(ls.sample(model, x_init=x, grid=grid), model.fields()[0](1.0, x))


@pytest.mark.parametrize("net", [lambda x, t: None, lambda x, t: (x,), lambda x, t: x / 0 + {}[0]])
def test_what_goes_wrong_in_a_network_is_named_by_step_and_time(net: Callable) -> None:
    with pytest.raises(ls.SolveError, match=r"dpmpp_2m, step 1 of 3, t = 80 to") as error:
        ls.sample(ls.Denoiser(net, EDM, shape=(2,)), 1, nfe=3)
    assert not isinstance(error.value, ls.ArgumentError)
    assert "\n" not in str(error.value)


def test_the_state_goes_where_it_is_asked_to() -> None:
    """A network without parameters runs where its input is; "meta" tensors have a place and no numbers."""
    seen = []

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        seen.append((x.device.type, t.device.type, y.device.type))
        raise RuntimeError("far enough")

    model = ls.Denoiser(net, EDM, shape=(2,))
    x = torch.zeros(1, 2, device="meta")
    for start in ({"n": 1, "device": "meta"}, {"x_init": x}):
        with pytest.raises(ls.SolveError, match="far enough"):
            ls.sample(model, cond={"y": [1]}, nfe=2, **start)
    assert seen == [("meta",) * 3] * 2


def test_time_keeps_a_half_precision_network_exact() -> None:
    """bf16 has 8 bits: index 999 would read 1000."""
    seen = []

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros((), dtype=torch.bfloat16))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            seen.append(t[0])
            return self.w * x

    process = ls.process.VP(discrete=True)
    model = ls.Denoiser(Net(), process, predicts="noise", shape=(2,), time=lambda t: t)
    plan = ls.plan_sampling(process, "ddim", 6, "trailing")
    ls.sample(model, 1, plan=plan)
    assert torch.equal(torch.stack(seen), torch.tensor(plan.times[:-1]))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p.EDM(sigma_data=0),
        lambda p: p.VE(sigma_min="a"),
        lambda p: p.VE(sigma_min=2.0, sigma_max=1.0),
        lambda p: p.VP(t_max=5.0),
        lambda p: p.VP(t_min=0.0),
        lambda p: p.VP(beta_max=-5.0),
        lambda p: p.VP(discrete=True, t_max=1200.0),
        lambda p: p.Flow(t_min=2.0),
        lambda p: p.AlphaSigma(lambda t: t, lambda t: 1 - t),
        lambda p: p.AlphaSigma(lambda t: 1.0, lambda t: t),
        lambda p: p.AlphaSigma(math.cos, math.sin),
        lambda p: p.AlphaSigma(1, 2),
    ],
)
def test_a_process_that_makes_no_sense_is_refused(make: Callable) -> None:
    with pytest.raises(ls.ArgumentError):
        make(ls.process)


def test_noise_prediction_at_pure_noise_is_refused_with_a_way_out() -> None:
    model = ls.Denoiser(lambda x, t: x, ls.process.Flow(), predicts="noise", shape=(2,))
    with pytest.raises(ls.ArgumentError, match="t_max"):
        ls.sample(model, 1, nfe=4)


@pytest.mark.parametrize("model", [None, "digits", torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(model) -> None:
    for call in (
        lambda: ls.sample(model, 2, nfe=4), lambda: ls.prior(model, 2),
        lambda: ls.reference(model, torch.ones(1, 2)),
    ):  # fmt: skip
        with pytest.raises(ls.ArgumentError, match=r"ls\.load\(name\), or ls\.Denoiser"):
            call()


def test_a_plan_file_of_another_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    ls.plan_sampling(EDM, "ddim", nfe=3).save(path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ls.PlanError, match="version 2, and this Longstride reads version 1"):
        ls.Plan.load(path)


def test_a_plan_for_another_process_is_refused_with_what_differs() -> None:
    plan = ls.plan_sampling(ls.process.EDM(sigma_max=40.0), "ddim", 4)
    with pytest.raises(ls.PlanError, match=r"sigma_max 40.0 and not 80.0"):
        ls.sample(mixture(dim=2), 1, plan=plan)


def spoil(path: Path, how: str) -> None:
    text = path.read_text()
    plan = json.loads(text)
    if how == "truncated":
        path.write_text(text[: len(text) // 2])
        return
    if how == "edited":
        plan["steps"][1]["stages"][1]["x"][0] *= 1.5
    elif how == "type":
        plan["times"] = "fast"
    elif how == "extra":
        plan["steps"][0]["code"] = "import os"
    elif how == "version":
        plan["version"] = 99
    elif how == "nan":
        plan["times"][0] = float("nan")
    elif how == "text":
        plan["times"][0] = "80.0"
    elif how == "list":
        plan = [plan]
    path.write_text(json.dumps(plan))


@pytest.mark.parametrize(
    "how", ["truncated", "edited", "type", "extra", "version", "nan", "text", "list", "missing"]
)
def test_a_spoilt_plan_file_is_refused(how: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    ls.plan_sampling(EDM, "dpmpp_2m", 5).save(path)
    if how == "missing":
        path.unlink()
    else:
        spoil(path, how)
    with pytest.raises(ls.PlanError, match="plan"):
        ls.Plan.load(path)


def test_weights_that_do_not_fit_are_refused() -> None:
    plan = ls.plan_sampling(EDM, "ddim", 3)
    stage = ls.Stage((1.0, 1.0, 1.0))
    with pytest.raises(ls.PlanError, match="step 1"):
        replace(plan, steps=(plan.steps[0], ls.Step((stage,)), plan.steps[2]))
    with pytest.raises(ls.PlanError, match="one way"):
        replace(plan, times=(1.0, 3.0, 2.0, 0.0))
    late = ls.Step((ls.Stage((1.0,), at=-5.0), ls.Stage((1.0, 0.0), (1.0,))))
    with pytest.raises(ls.PlanError, match="step 2 evaluates outside"):
        replace(plan, steps=(*plan.steps[:2], late))
    for interval in ((1.0, 1.0), (-1.0, 1.0), (0.0, 1.0)):
        with pytest.raises(ls.PlanError, match="Brownian times"):
            replace(plan, steps=(replace(plan.steps[0], brownian=interval), *plan.steps[1:]))


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path: Path) -> None:
    plan = ls.plan_sampling(EDM, "dpmpp_2m_sde", np.int64(4), eta=np.float32(0.5))
    plan.save(tmp_path / "plan.json")
    assert ls.Plan.load(tmp_path / "plan.json").options == {"eta": 0.5}


def test_a_plan_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    plan = ls.plan_sampling(EDM, "ddim", 3)
    with pytest.raises(ls.ArgumentError, match="cannot write"):
        plan.save(tmp_path / "no" / "plan.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ls.ArgumentError, match="cannot write"):
        plan.save(tmp_path / "folder.json")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.json"]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(ls.ArgumentError, match="did you mean fashion"):
        ls.load("fashon")
    with pytest.raises(ls.ArgumentError, match="no model file"):
        ls.load(path)
    path.write_bytes(b"PK\x03\x04 not safetensors")
    with pytest.raises(ls.ArgumentError, match="not a safetensors file"):
        ls.load(path)
    header = {"name": "x", "unet": [1, 1, 16, 1, 10, 0], "shape": [1, 8, 8], "classes": 10, "sigma_data": 0.5}
    write_tensors(path, "denoiser", {"enter.weight": torch.zeros(3, 3)}, header)
    with pytest.raises(ls.ArgumentError, match="has shape"):
        ls.load(path)
    for broken in ({}, {**header, "unet": ["x"]}, {**header, "unet": [-1, 1, 16, 1, 10, 0]}):
        write_tensors(path, "denoiser", {"enter.weight": torch.zeros(3, 3)}, broken)
        with pytest.raises(ls.ArgumentError, match="describes no network"):
            ls.load(path)
    write_tensors(path, "judge", {}, {})
    with pytest.raises(ls.ArgumentError, match="no longstride denoiser"):
        ls.load(path)


def test_a_network_that_returns_another_shape_is_named() -> None:
    model = ls.Denoiser(lambda x, t: x[:, :1], EDM, shape=(2,))
    with pytest.raises(ls.SolveError, match=r"returned shape \(1, 1\)"):
        ls.sample(model, 1, nfe=2)


def test_solve_hits_the_times_it_was_asked_for() -> None:
    """x' = -x from 1: the state at save_at is e^-t there, though dt does not divide the gaps."""
    marks = [0.0, 0.35, 0.5, 1.0]
    solution = ls.solve(
        ls.ODE(lambda t, x: -x), torch.ones(1, 1, dtype=F64), t=(0, 1), method="rk4", dt=0.1, save_at=marks
    )
    assert solution.t == tuple(marks)
    assert torch.allclose(solution.x[:, 0, 0], torch.exp(-torch.tensor(marks, dtype=F64)), atol=1e-6)
    assert solution.stats.nfe == 4 * (4 + 2 + 5)


def test_an_ode_gets_its_time_as_a_tensor_and_must_return_what_it_got() -> None:
    """x' = cos t from 0 is sin t; t is real where x is complex."""

    def rate(t: Tensor, x: Tensor) -> Tensor:
        assert (t.shape, t.dtype) == ((), F64)
        return torch.cos(t).expand_as(x).to(x)

    for dtype in (F64, torch.complex128):
        x = ls.solve(ls.ODE(rate), torch.zeros(2, 1, dtype=dtype), t=(0, 1), steps=50).x
        assert torch.allclose(x, torch.full_like(x, math.sin(1)), atol=1e-9)
    with pytest.raises(ls.SolveError, match=r"rk4, step 1 of 4.*returned torch.float32, \(\)"):
        ls.solve(ls.ODE(lambda t, x: x.sum()), torch.zeros(2, 1), t=(0, 1), steps=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 2.5}, "whole number"),
        ({"steps": 0}, "at least 1"),
        ({"dt": -0.1}, "dt is positive"),
        ({"dt": 0.0}, "positive"),
        ({"dt": float("nan")}, "finite"),
        ({"steps": 2, "t": (0, float("nan"))}, "finite"),
        ({"steps": 2, "t": 3.0}, r"\(start, end\)"),
        ({"steps": 2, "save_at": []}, "empty"),
        ({"steps": 2, "save_at": [-1.0, 1.0]}, "turning back"),
        ({"steps": 2, "save_at": [0.5, 0.0]}, "turning back"),
        ({"steps": 2, "x0": torch.ones(2, dtype=torch.int64)}, "floating"),
        ({"steps": 2, "dt": 0.1}, "either dt= or steps="),
    ],
)
def test_bad_arguments_of_solve_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        ls.solve(ls.ODE(lambda t, x: -x), **{"x0": torch.ones(1, 1), "t": (0, 1), **arguments})


def test_solve_does_not_sample() -> None:
    with pytest.raises(ls.ArgumentError, match="samples diffusions"):
        ls.solve(ls.ODE(lambda t, x: -x), torch.ones(1, 1), t=(0, 1), method="ddpm", dt=0.1)


def test_lower_orders_towards_the_end_count_the_step_to_clean_data() -> None:
    """As published: of n steps, the last to clean data, step k from the end is of order k at most."""
    nodes = [len(s.stages[0].f) - s.stages[0].f.count(0.0) for s in ls.plan_sampling(EDM, "unipc_3", 8).steps]
    assert nodes[1:] == [2, 3, 3, 3, 3, 2, 1]


def test_a_grid_that_begins_below_pure_noise_needs_no_ddim() -> None:
    flow = ls.process.Flow()
    plan = ls.plan_sampling(flow, "unipc_2", 6, "leading")
    assert plan.steps == ls.plan_sampling(flow, "unipc_2", grid=plan.times).steps
