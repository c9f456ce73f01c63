"""Guidance: what each part does where theory says it exactly, what it costs, and the compiled loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import longstride as ls
from longstride import compiled
from longstride.frame import PREDICTIONS, conversion
from longstride.models import ideal, mixture
from longstride.models.exact import Mixture

F64 = torch.float64
EDM = ls.process.EDM()
Y = torch.tensor([1.0, -2.0, 0.5], dtype=F64)


def labelled(calls: list[int] | None = None, spread: float = 1.0, process=EDM) -> ls.Denoiser:
    """Gaussian data in 6 dimensions around y (1, 1, 1, 0, 0, 0), or 0 without a label."""

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if calls is not None:
            calls.append(len(x))
        centre = y[:, None] * torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=x.dtype)
        alpha, sigma = (w[:, None] for w in process.pair(t))
        return centre + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (x - alpha * centre)

    return ls.Denoiser(net, process, shape=(6,), null={"y": 0.0}, data_range=(-1.0, 1.0))


def sampled(guidance: float | ls.Guidance, model: ls.Denoiser | None = None, **more) -> Tensor:
    model = model or labelled()
    return ls.sample(
        model, x_init=ls.prior(model, 3, dtype=F64), nfe=8, cond={"y": Y}, guidance=guidance, **more
    )


EQUAL = {
    "weight 1": (ls.Guidance(1.0), 1.0),
    "a number": (ls.Guidance(2.5), 2.5),
    "a function": (ls.Guidance(lambda t: 2.5), 2.5),
    "a function that is 1": (ls.Guidance(lambda t: 1.0), 1.0),
    "everywhere": (ls.Guidance(2.5, interval=(0.0, math.inf)), 2.5),
    "nowhere": (ls.Guidance(2.5, interval=(1.0, 1.0)), 1.0),
    "an interval": (ls.Guidance(2.5, (0.3, 3.0)), ls.Guidance(lambda t: 2.5 if 0.3 < t <= 3 else 1.0)),
    "rescale 0": (ls.Guidance(2.5, rescale=0.0), 2.5),
    "rescale of nothing": (ls.Guidance(1.0, rescale=1.0), 1.0),
    "against itself": (ls.Guidance(7.0, against=labelled()), 1.0),
    "against itself, by a function": (ls.Guidance(lambda t: 1 + t, against=labelled()), 1.0),
}  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EQUAL.values(), ids=EQUAL)
def test_what_is_the_same_by_definition_samples_the_same(one, other) -> None:
    assert torch.allclose(sampled(one), sampled(other), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("interval", [None, (0.3, 3.0), (1.0, 1.0), (0.0, math.inf)])
@pytest.mark.parametrize("auto", [False, True])
def test_the_calls_that_are_counted_are_those_that_were_made(interval, auto: bool) -> None:
    calls: list[int] = []
    model, stats = labelled(calls), ls.Stats()
    sampled(ls.Guidance(2.0, interval, against=model if auto else None), model, stats=stats)
    on = {None: 8, (1.0, 1.0): 0, (0.0, math.inf): 8}.get(interval, 0)
    if interval == (0.3, 3.0):
        on = sum(0.3 < t <= 3.0 for t in ls.plan_sampling(EDM, nfe=8).evaluated)
        assert 0 < on < 8
    assert (stats.nfe, stats.network_calls) == (8, 8 + on)
    assert sorted(calls) == ([3] * (8 + on) if auto else [3] * (8 - on) + [6] * on)


def test_rescale_1_keeps_the_spread_of_each_sample_and_between_it_blends() -> None:
    x = ls.prior(labelled(), 3, t=1.5, dtype=F64)
    fields = {r: labelled().fields({"y": Y}, ls.Guidance(4.0, rescale=r))[0](1.5, x) for r in (0.0, 0.7, 1.0)}
    plain = labelled().fields({"y": Y})[0](1.5, x)
    assert torch.allclose(fields[1.0].std(1), plain.std(1), rtol=1e-12)
    assert not torch.allclose(fields[0.0].std(1), plain.std(1), rtol=0.05)
    assert torch.allclose(fields[0.7], 0.7 * fields[1.0] + 0.3 * fields[0.0], rtol=1e-12)


def test_a_threshold_leaves_data_alone_that_lie_within_the_range() -> None:
    images = torch.rand(9, 6, generator=torch.Generator().manual_seed(0), dtype=F64) * 3 + 2
    model = replace(ideal(images), data_range=(2.0, 5.0))
    x = ls.prior(model, 4, dtype=F64)
    plain, limited = (
        ls.sample(model, x_init=x, nfe=6, guidance=ls.Guidance(threshold=q)) for q in (None, 0.9)
    )
    assert torch.allclose(plain, limited, atol=1e-12)


def test_a_threshold_scales_each_sample_by_its_own_quantile() -> None:
    """Of 4 elements the quantile 0.75 is the third: 2 for the first sample, and 0.5, so 1, for the second."""
    data = torch.tensor([[-4.0, 2.0, 1.0, 0.5], [0.1, 0.2, -0.5, 3.0]])
    limited = ls.Guidance(threshold=0.75).limited(data, (-1.0, 1.0))
    assert torch.equal(limited, torch.tensor([[-1.0, 1.0, 0.5, 0.25], [0.1, 0.2, -0.5, 1.0]]))
    moved = ls.Guidance(threshold=0.75).limited(3 * data + 7, (4.0, 10.0))
    assert torch.allclose(moved, 3 * limited + 7)


@pytest.mark.parametrize("process", [EDM, ls.process.VP(), ls.process.Flow()])
@pytest.mark.parametrize("target", PREDICTIONS)
def test_every_prediction_follows_from_the_limited_data(process, target: str) -> None:
    t, guidance = process.time(0.3), ls.Guidance(9.0, threshold=0.8)
    model = labelled(process=process)
    x = ls.prior(model, 3, dtype=F64)
    fields = dict(zip(PREDICTIONS, model.fields({"y": Y}, guidance), strict=True))
    data = fields["data"](t, x)
    assert data.abs().max() <= 1 + 1e-12
    a, b = conversion("data", target, *process.pair(t))
    assert torch.allclose(fields[target](t, x), a * x + b * data, rtol=1e-12)


def test_autoguidance_leads_away_from_what_a_worse_network_gets_wrong() -> None:
    """D = y + g (x - y); the worse one thinks the data broader, so the guided slope is g' + w (g - g')."""
    good, bad, w, sigma = labelled(), labelled(spread=2.0), 3.0, 0.8
    x = ls.prior(good, 3, dtype=F64)
    g, worse = (s**2 / (s**2 + sigma**2) for s in (1.0, 2.0))
    centre = Y[:, None] * torch.tensor([1.0, 1, 1, 0, 0, 0])
    found = good.fields({"y": Y}, ls.Guidance(w, against=bad))[0](sigma, x)
    assert torch.allclose(found, centre + (worse + w * (g - worse)) * (x - centre), rtol=1e-12)
    narrow, plain = (sampled(guidance) for guidance in (ls.Guidance(w, against=bad), 1.0))
    assert ((narrow - centre).square().sum() < (plain - centre).square().sum()).item()


def test_a_retimed_model_and_what_it_is_guided_against_are_told_the_same() -> None:
    model = ls.fields.retimed(labelled(), lambda t: 1.1 * t)
    x = ls.prior(model, 3, dtype=F64)
    plain, guided = (
        model.fields({"y": Y}, g)[0](1.0, x) for g in (1.0, ls.Guidance(5.0, against=labelled()))
    )
    assert torch.allclose(plain, guided, rtol=1e-12)


def test_autoguidance_needs_no_condition() -> None:
    model = mixture(dim=2)
    broad = mixture(Mixture(model.net.distribution.weights, model.net.distribution.means,
                            2 * model.net.distribution.covs))  # fmt: skip
    stats = ls.Stats()
    ls.sample(model, 2, nfe=5, guidance=ls.Guidance(1.5, against=broad), stats=stats)
    assert (stats.nfe, stats.network_calls) == (5, 10)


ALL = {
    "interval": ls.Guidance(3.0, (0.3, 3.0)),
    "function": ls.Guidance(lambda t: 1 + t / (1 + t)),
    "rescale": ls.Guidance(3.0, rescale=0.7),
    "threshold": ls.Guidance(3.0, threshold=0.8),
    "threshold alone": ls.Guidance(threshold=0.8),
    "against": ls.Guidance(2.0, (0.3, 3.0), against=labelled(spread=2.0)),
}


@pytest.mark.parametrize("method", ["dpmpp_2m", "dpm_2m", "heun"])
@pytest.mark.parametrize("guidance", ALL.values(), ids=ALL)
def test_the_compiled_loop_guides_as_the_other_does(guidance, method: str, monkeypatch) -> None:
    monkeypatch.setattr(
        compiled, "_compiled", lambda: compiled._advance
    )  # the algebra alone, without a compiler
    one, other = (sampled(guidance, method=method, compile=c) for c in (False, True))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def test_an_interval_has_one_graph_inside_and_one_outside() -> None:
    torch._dynamo.reset()
    model = labelled()
    for graphs in (2, 0):
        counters.clear()
        guidance = ls.Guidance(3.0, (0.3, 3.0), rescale=0.5, threshold=0.8)
        assert torch.allclose(sampled(guidance, model, compile=True), sampled(guidance), rtol=1e-9, atol=1e-9)
        assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ls.Guidance("high"), "finite number"),  # type: ignore[arg-type]
        (lambda: ls.Guidance(2.0, (3.0, 1.0)), "interval"),
        (lambda: ls.Guidance(2.0, 3.0), "interval"),  # type: ignore[arg-type]
        (lambda: ls.Guidance(2.0, rescale=1.5), "from 0 to 1"),
        (lambda: ls.Guidance(2.0, threshold=99.5), "quantile"),
        (lambda: ls.Guidance(2.0, against=torch.nn.Linear(2, 2)), "it is a Denoiser"),  # type: ignore[arg-type]
        (lambda: sampled(ls.Guidance(lambda t: math.nan)), "^guidance at t"),
        (lambda: ls.sample(labelled(), 2, nfe=3, guidance=ls.Guidance(lambda t: t)), "needs cond= with y"),
        (lambda: sampled(2.0, replace(labelled(), null={})), "null condition"),
        (lambda: sampled(ls.Guidance(threshold=0.9), replace(labelled(), data_range=None)), "data_range"),
        (lambda: sampled(ls.Guidance(2.0, against=mixture(process=ls.process.VP()))), "predict data of EDM"),
        (lambda: sampled(ls.Guidance(2.0, against=ls.fields.shared_times(labelled(), 1.0))), "is retimed"),
    ],
)  # fmt: skip
def test_bad_guidance_says_what_to_do(make: Callable, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        make()


def test_guidance_says_what_it_is() -> None:
    assert str(ls.Guidance.of(2.0)) == "2"
    guidance = ls.Guidance(lambda t: t, (0.3, 3.0), 0.7, 0.995, labelled())
    assert str(guidance) == "weight(t), against model, between 0.3 and 3, rescale 0.7, threshold 0.995"
