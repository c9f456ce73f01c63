"""What users lean on: guidance, batching, callbacks, plans as files, errors that say what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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


@pytest.mark.parametrize("y", [3.0, torch.tensor(3.0), [3.0, 3.0]])
def test_guidance_is_never_dropped_without_a_word(y: object) -> None:
    with pytest.raises(ls.ArgumentError, match="one entry for each sample"):
        ls.sample(labelled(), 2, nfe=2, cond={"y": y}, guidance=2.0)


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
        ({"t_start": 5.0}, "needs x_init"),
        ({"nfe": 5, "grid": [80.0, 1.0]}, "2 times where 5"),
        ({"x_init": torch.zeros(2, 3), "n": None}, "where the model wants"),
        ({"cond": {"y": torch.zeros(5)}}, "5 entries for 2 samples"),
        ({"plan": "six", "nfe": 6}, "leave those out"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments: dict, message: str) -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the network was called")

    model = ls.Denoiser(net, EDM, shape=(2,))
    if "plan" in arguments:
        arguments = {**arguments, "plan": ls.plan_sampling(EDM, "ddim", 6)}
    with pytest.raises(ls.ArgumentError, match=message):
        ls.sample(model, **{"n": 2, **arguments})


def test_noise_prediction_at_pure_noise_is_refused_with_a_way_out() -> None:
    model = ls.Denoiser(lambda x, t: x, ls.process.Flow(), predicts="noise", shape=(2,))
    with pytest.raises(ls.ArgumentError, match="t_max"):
        ls.sample(model, 1, nfe=4)


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
    elif how == "list":
        plan = [plan]
    path.write_text(json.dumps(plan))


@pytest.mark.parametrize("how", ["truncated", "edited", "type", "extra", "version", "nan", "list", "missing"])
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
    with pytest.raises(ls.ArgumentError, match="samples diffusions"):
        ls.solve(ls.ODE(lambda t, x: -x), torch.ones(1, 1), t=(0, 1), method="ddpm", dt=0.1)
