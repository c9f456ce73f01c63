"""Evaluations that reuse what an earlier one left: what they must equal, and what they must be counted as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import longstride as ls
from longstride.fields import cached, cached_features, retimed
from longstride.frame import PREDICTIONS
from longstride.models import mixture

F64 = torch.float64
PROCESSES = {"edm": ls.process.EDM(), "vp": ls.process.VP(), "flow": ls.process.Flow()}
DEEP = ("shrink", "down2", "attention", "up2", "grow")  # of the embedded U-Net
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


class Parts(nn.Module):
    """shallow(x, t) + deep(x, t), each counted."""

    def __init__(self, deep: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Part(deep)])
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.calls += 1
        out = 0.5 * x + self.blocks[0](x, t)
        return out if y is None else out + y[:, None]


class Part(nn.Module):
    def __init__(self, of: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.of, self.calls = of, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.of(x, t)


def parts(deep: Callable[[Tensor, Tensor], Tensor]) -> ls.Denoiser:
    return ls.Denoiser(Parts(deep), ls.process.EDM(), shape=(2,), null={"y": 0.0})


@pytest.mark.parametrize("method", ["dpmpp_2m", "unipc_2", "heun"])
def test_with_all_evaluations_fresh_nothing_changes_by_a_bit(method: str) -> None:
    model = ls.load("digits")
    x = ls.prior(model, 4)
    known = ls.sample(model, x_init=x, method=method, nfe=5)
    for same in (cached(model, ()), cached_features(model, (), DEEP)):
        assert torch.equal(ls.sample(same, x_init=x, method=method, nfe=5), known)


def test_a_module_that_sees_neither_x_nor_t_is_reused_exactly_and_not_run() -> None:
    model = parts(lambda x, t: torch.full_like(x, 0.3))
    x = ls.prior(model, 3, dtype=F64)
    known = ls.sample(model, x_init=x, nfe=7)
    stats, deep = ls.Stats(), model.net.blocks[0]
    before = model.net.calls, deep.calls
    reusing = cached_features(model, (1, 2, 5), ["blocks"])
    assert torch.equal(ls.sample(reusing, x_init=x, nfe=7, stats=stats), known)
    assert deep.calls - before[1] == 4
    assert (stats.nfe, stats.network_calls) == (7, 7)
    assert torch.equal(ls.sample(model, x_init=x, nfe=7), known)  # the network itself is as it was
    assert model.net.calls - before[0] == 7


def test_reused_features_are_those_of_the_last_fresh_evaluation() -> None:
    """D(t, x) = x/2 + t: told to reuse, t is the last fresh one, in every batch and every run anew."""
    model = parts(lambda x, t: t[:, None].expand_as(x))
    reusing = cached_features(model, (1, 3), ["blocks.0"])
    times = [80.0, 40.0, 10.0, 1.0]
    stale = retimed(model, {80.0: 80.0, 40.0: 80.0, 10.0: 10.0, 1.0: 10.0}.__getitem__)
    x = ls.prior(model, 5, dtype=F64)
    known = ls.sample(stale, x_init=x, grid=times)
    for batch in (5, 2):
        assert torch.equal(ls.sample(reusing, x_init=x, grid=times, batch=batch), known)


def test_the_deep_half_of_a_unet_is_not_run_where_it_is_reused() -> None:
    model = ls.load("digits")
    runs = dict.fromkeys(DEEP, 0)

    def count(name: str) -> Callable:
        return lambda *_: runs.__setitem__(name, runs[name] + 1)

    hooks = [
        (m[0] if isinstance(m, nn.ModuleList) else m).register_forward_hook(count(n))
        for n, m in model.net.named_children()
        if n in DEEP
    ]
    x = ls.prior(model, 16)
    truth = ls.reference(cached(model, ()), x, nfe=100)
    runs.update(dict.fromkeys(DEEP, 0))
    found = ls.sample(cached_features(model, (1, 3, 5, 7), DEEP), x_init=x, nfe=8)
    assert set(runs.values()) == {4}
    for hook in hooks:
        hook.remove()
    half = ls.sample(model, x_init=x, nfe=4)
    assert ls.metrics.endpoint_error(found, truth) < ls.metrics.endpoint_error(half, truth)


@each_process
@pytest.mark.parametrize("hold", ["data", "noise", "velocity"])
def test_a_repeated_prediction_is_one_longer_step_of_ddim(process, hold: str) -> None:
    """DDIM holds its prediction still, whichever: two steps on one prediction are one step."""
    if hold == "noise" and process == PROCESSES["flow"]:
        pytest.skip("noise says nothing of the data where a flow begins, and evaluation 0 is held there")
    model, calls = mixture(dim=4, process=process), []
    counting = replace(model, net=lambda x, t: calls.append(len(x)) or model.net(x, t))
    times = ls.grid.times(process, 6, "log_snr")
    x, stats = ls.prior(model, 3, dtype=F64), ls.Stats()
    found = ls.sample(cached(counting, (1, 4), hold=hold), x_init=x, method="ddim", grid=times, stats=stats)
    known = ls.sample(
        model, x_init=x, method="ddim", grid=[t for n, t in enumerate(times) if n not in (1, 4)]
    )
    assert torch.allclose(found, known, rtol=1e-9, atol=1e-9)
    assert len(calls) == stats.network_calls == 4
    assert stats.nfe == 6


@pytest.mark.parametrize("target", PREDICTIONS)
def test_what_a_plan_asks_for_follows_from_what_is_repeated(target: str) -> None:
    """D = 0.25 at sigma = 2 from x = 1; held, the noise at sigma = 1 from x = 3 is (3 - 0.25)/1."""
    model = ls.Denoiser(lambda x, t: torch.full_like(x, 0.25), ls.process.EDM(), shape=(1,))
    for hold, data in (("data", 0.25), ("noise", 3 - (1 - 0.25) / 2)):
        k = PREDICTIONS.index(target)
        field = cached(model, (1,), hold=hold).fields()[k]
        field(2.0, torch.ones(1, 1, dtype=F64))
        exact = replace(model, net=lambda x, t, d=data: torch.full_like(x, d)).fields()[k]
        x = torch.full((1, 1), 3.0, dtype=F64)
        assert torch.allclose(field(1.0, x), exact(1.0, x))


def test_guidance_is_repeated_and_counted_as_two_calls_where_it_is_asked() -> None:
    model, stats = parts(lambda x, t: torch.full_like(x, 0.3)), ls.Stats()
    x = ls.prior(model, 3, dtype=F64)
    asked = {"x_init": x, "nfe": 5, "cond": {"y": 1.0}, "guidance": 2.0, "stats": stats}
    features = ls.sample(cached_features(model, (1, 2), ["blocks"]), **asked)
    assert torch.equal(features, ls.sample(model, **asked))
    ls.sample(cached(model, (1, 2)), **asked)
    assert (stats.nfe, stats.network_calls) == (5, 6)


def test_features_of_another_batch_are_refused() -> None:
    """Guidance that begins at a reused evaluation doubles the batch."""
    model = parts(lambda x, t: torch.full_like(x, 0.3))
    guidance = ls.Guidance(lambda t: 2.0 if t < 50 else 1.0)
    with pytest.raises(ls.SolveError, match="evaluate anew where guidance"):
        ls.sample(cached_features(model, (1,), ["blocks"]), 2, nfe=4, cond={"y": 1.0}, guidance=guidance)


MIX = mixture(dim=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cached(MIX, (0, 1)), "nothing before it"),
        (lambda: cached(MIX, (1,), hold="score"), "prediction"),
        (lambda: cached(cached(MIX, (1,)), (2,)), "at once"),
        (lambda: cached_features(MIX, (1,), ["deep"]), "no torch module"),
        (lambda: cached_features(ls.load("digits"), (1,), ["midle"]), "unknown module 'midle'"),
        (lambda: cached_features(ls.load("digits"), (1,), []), "modules is empty"),
        (lambda: ls.sample(cached(MIX, (1,)), 2, nfe=3, compile=True), "leave out compile="),
    ],
)
def test_bad_arguments_say_what_to_do(make: Callable, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        make()
