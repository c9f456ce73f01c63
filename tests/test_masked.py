"""Masked diffusion of four tokens, whose denoiser is a table of exact conditionals."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, product

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.noise import Noise
from longstride.samplers import Remasking, sample_first_hitting, sample_masked
from longstride.samplers.masked import categorical, time_of

F64 = torch.float64
L, V, MASK = 4, 2, 2
JOINT = torch.rand((V,) * L, generator=torch.Generator().manual_seed(0), dtype=F64) ** 3
JOINT[0, 0, 0, 0] += 1
JOINT[1, 1, 1, 1] += 0.7
JOINT /= JOINT.sum()
COINS = torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.8, 0.2], [0.1, 0.9]], dtype=F64)
INDEPENDENT = torch.einsum("a,b,c,d->abcd", *COINS)
SCHEDULES = {
    "ancestral": Remasking(cap=0.0),
    "cap": Remasking(cap=0.2),
    "rescale": Remasking(rescale=0.5),
    "largest": Remasking(),
    "confidence": Remasking(cap=0.3, confidence=True),
    "loop": Remasking(cap=0.2, loop=(0.8, 0.6, 0.2)),
}


def marginal(joint: Tensor, context: tuple[int, ...], position: int) -> Tensor:
    """p(token at position | the tokens of the context that are no mask), [V]."""
    seen = joint[tuple(slice(None) if k == MASK else slice(k, k + 1) for k in context)]
    p = seen.sum(tuple(i for i in range(L) if i != position))
    return p / p.sum()


def denoiser(joint: Tensor, error: Callable[[int], float] = lambda masks: 0.0) -> Callable[..., Tensor]:
    """The exact conditionals mixed with a coin's, the coin's share being the error at so many masks."""
    table = torch.zeros(*(V + 1,) * L, L, V, dtype=F64)
    for context in product(range(V + 1), repeat=L):
        share = error(context.count(MASK))
        for i in (i for i in range(L) if context[i] == MASK):
            table[(*context, i)] = ((1 - share) * marginal(joint, context, i) + share / V).log()
    return lambda x, t: table[tuple(x.unbind(1))]


def distance(x: Tensor, joint: Tensor) -> float:
    """Total variation between samples and a joint distribution."""
    cell = (x * V ** torch.arange(L - 1, -1, -1)).sum(1)
    return float((torch.bincount(cell, minlength=V**L) / len(x) - joint.flatten()).abs().sum()) / 2


def expected(joint: Tensor, n: int) -> tuple[float, float]:
    """Mean and a bound of the standard deviation of `distance` for n samples of the joint itself.

    A cell's error is normal with variance p(1 - p)/n, whose absolute value has the mean sqrt(2/pi) of its
    deviation and (1 - 2/pi) of its variance; the cells are correlated negatively.
    """
    mean = (joint * (1 - joint)).sqrt().sum() * math.sqrt(2 / math.pi / n) / 2
    return float(mean), math.sqrt((1 - 2 / math.pi) / n) / 2


def masks(n: int) -> Tensor:
    return torch.full((n, L), MASK)


def cosine(t: Tensor) -> Tensor:
    return 1 - torch.cos(math.pi / 2 * (1 - t))


def test_first_hitting_is_exact_with_one_call_a_token() -> None:
    n, stats = 40_000, ls.Stats()
    x = sample_first_hitting(denoiser(JOINT), masks(n), 100, mask=MASK, stats=stats)
    mean, deviation = expected(JOINT, n)
    print(distance(x, JOINT), mean, deviation)
    assert mean + 4 * deviation < 0.015
    assert distance(x, JOINT) < mean + 4 * deviation
    assert (stats.nfe, stats.network_calls, stats.steps) == (L, L, L)


def test_two_calls_for_four_tokens_are_pairs_drawn_independently() -> None:
    """The law: a pair of positions at random from its marginals, then the other pair given the first."""
    law = torch.zeros_like(JOINT)
    for x in product(range(V), repeat=L):
        for pair in combinations(range(L), 2):
            some = tuple(x[i] if i in pair else MASK for i in range(L))
            chance = 1 / 6
            for i in range(L):
                chance *= float(marginal(JOINT, masks(1)[0].tolist() if i in pair else some, i)[x[i]])
            law[x] += chance
    n = 20_000
    y = sample_first_hitting(denoiser(JOINT), masks(n), 2, mask=MASK)
    mean, deviation = expected(law, n)
    assert distance(y, law) < mean + 4 * deviation
    assert distance(y, JOINT) > 0.1


@pytest.mark.parametrize("alpha", [lambda t: 1 - t, cosine], ids=["linear", "cosine"])
def test_hitting_times_are_those_of_the_paper(alpha) -> None:
    """(1 - alpha(tau_(n-1)))/(1 - alpha(tau_n)) = u^(1/n), each u uniform and of its own."""
    n, times = 20_000, []

    def net(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.double())
        return torch.zeros(n, L, V)

    sample_first_hitting(net, masks(n), L, mask=MASK, alpha=alpha)
    hidden = torch.stack([torch.ones(n, dtype=F64), *(1 - alpha(t) for t in times)])
    u = (hidden[1:] / hidden[:-1]) ** torch.arange(L, 0, -1)[:, None]
    assert float(hidden[1].mean()) == pytest.approx(L / (L + 1), rel=0.01)
    if alpha is not cosine:
        assert float(times[0].mean()) == pytest.approx(L / (L + 1), rel=0.01)
    assert (u.mean(1) - 1 / 2).abs().max() < 4 * math.sqrt(1 / 12 / n)
    assert (u.var(1) - 1 / 12).abs().max() < 4 * math.sqrt(1 / 180 / n)
    assert (torch.corrcoef(u) - torch.eye(L)).abs().max() < 4 / math.sqrt(n)


@pytest.mark.parametrize("alpha", [lambda t: 1 - t, cosine], ids=["linear", "cosine"])
@pytest.mark.parametrize("remasking", SCHEDULES.values(), ids=SCHEDULES)
def test_the_shown_share_is_alpha_and_tokens_keep_their_law(remasking: Remasking, alpha) -> None:
    """Independent tokens leave no error but the sampler's own, which remasking without weights keeps at 0."""
    n, exact, seen = 2000, denoiser(INDEPENDENT), []

    def net(x: Tensor, t: Tensor) -> Tensor:
        share = (x != MASK).double().mean(1)
        seen.append((float(alpha(t[:1].double())), float(share.mean()), float(share.std())))
        return exact(x, t)

    x = sample_masked(net, masks(n), 10, mask=MASK, alpha=alpha, remasking=remasking, seed=1)
    assert len(seen) == 10
    for want, share, deviation in seen[1:]:
        assert abs(share - want) < 4 * deviation / math.sqrt(n)
    assert (x != MASK).all()
    mean, deviation = expected(INDEPENDENT, n)
    assert remasking.confidence or distance(x, INDEPENDENT) < mean + 4 * deviation


def test_a_loop_stays_at_its_share() -> None:
    """(alpha_on, t_on, t_off) = (0.9, 0.5, 0.2): half of the steps lead there, a fifth on to clean data."""
    steps = Remasking(cap=0.02, loop=(0.9, 0.5, 0.2)).steps(20, cosine)
    assert [sigma for *_, sigma in steps] == [0.0] * 10 + [0.02] * 6 + [0.0] * 4
    for _, alpha_t, alpha_s, _ in steps[10:16]:
        assert (alpha_t, alpha_s) == pytest.approx((0.9, 0.9), abs=1e-12)
    assert all(alpha_t < alpha_s for _, alpha_t, alpha_s, _ in steps[:10] + steps[16:])


def test_remasking_repairs_what_a_denoiser_got_wrong_from_little_context() -> None:
    """Half a coin's toss when all is masked, exact when the rest is known."""
    n, net = 1000, denoiser(JOINT, lambda masked: 0.5 * (masked - 1) / (L - 1))
    plain, *remasked = (
        distance(sample_masked(net, masks(n), 64, mask=MASK, remasking=SCHEDULES[k]), JOINT)
        for k in ("ancestral", "rescale", "confidence")
    )
    print(plain, remasked)
    assert plain - max(remasked) > 3 * math.sqrt(2) * expected(JOINT, n)[1]


def test_a_step_that_shows_nothing_is_no_call_and_a_prompt_stays() -> None:
    calls, exact = [], denoiser(JOINT)

    def net(x: Tensor, t: Tensor) -> Tensor:
        calls.append(x.clone())
        return exact(x, t)

    prompt = torch.tensor([[MASK, 1, MASK, MASK]])
    for sampler, budget, options in (
        (sample_masked, 500, {}),
        (sample_masked, 30, {"remasking": Remasking()}),
        (sample_first_hitting, 500, {}),
        (sample_first_hitting, 2, {}),
    ):
        calls.clear()
        stats = ls.Stats()
        x = sampler(net, prompt, budget, mask=MASK, stats=stats, **options)
        assert stats.nfe == len(calls) <= (budget if options else min(budget, 3))
        assert all(call[0, 1] == 1 for call in calls)
        assert x[0, 1] == 1
        assert (x != MASK).all()


def test_prompts_of_every_length_share_a_batch() -> None:
    """Given 1 at the second position, the rest has the conditional law, whoever else is in the batch."""
    n = 20_000
    start = torch.where(torch.arange(n)[:, None] % 2 == 0, torch.tensor([MASK, 1, MASK, MASK]), MASK)
    x = sample_first_hitting(denoiser(JOINT), start, L, mask=MASK)
    given = torch.zeros_like(JOINT)
    given[:, 1] = JOINT[:, 1] / JOINT[:, 1].sum()
    for part, law in ((x[::2], given), (x[1::2], JOINT)):
        mean, deviation = expected(law, n // 2)
        assert distance(part, law) < mean + 4 * deviation


@pytest.mark.parametrize("remasking", [None, *SCHEDULES.values()], ids=["first hitting", *SCHEDULES])
def test_a_sample_does_not_depend_on_its_batch(remasking: Remasking | None) -> None:
    def run(n: int, first: int) -> Tensor:
        if remasking is None:
            return sample_first_hitting(denoiser(JOINT), masks(n), 3, mask=MASK, seed=3, first=first)
        return sample_masked(
            denoiser(JOINT), masks(n), 12, mask=MASK, remasking=remasking, seed=3, first=first
        )

    assert torch.equal(run(60, 0)[20:23], run(3, 20))
    assert not torch.equal(run(60, 0), run(60, 60))


def test_uniform_and_gamma_draws_have_their_moments_and_belong_to_the_sample() -> None:
    noise = Noise(4, range(8), (2500,))
    u, v, g = noise.uniform(0), noise.uniform(1), noise.gamma(3.0)
    n = u.numel()
    for x, mean, variance, fourth in ((u, 1 / 2, 1 / 12, 1 / 80), (v, 1 / 2, 1 / 12, 1 / 80), (g, 3, 3, 45)):
        assert abs(float(x.mean()) - mean) < 4 * math.sqrt(variance / n)
        assert abs(float(x.var()) - variance) < 4 * math.sqrt((fourth - variance**2) / n)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert float(torch.corrcoef(torch.stack([u, v, g]).flatten(1)).fill_diagonal_(0).abs().max()) < 4 / n**0.5
    part = Noise(4, [5, 2], (2500,))
    assert torch.equal(part.uniform(1), v[[5, 2]])
    assert torch.equal(part.gamma(3.0), g[[5, 2]])


def test_float64_draws_have_the_entropy_that_float32_gumbels_lose() -> None:
    """The vocabulary of GPT-2, all of it but one token sharing a probability of 1/1000."""
    rest, rare = 50_256, 1e-3
    logits = torch.full((64, rest + 1), math.log(rare / rest), dtype=F64)
    logits[:, 0] = math.log1p(-rare)
    # u over the rare thousandth finds its tokens evenly, and below it there is token 0 alone.
    u = (torch.arange(64, dtype=F64) + 0.5) / 64
    token, p = categorical(logits, 1 - rare + rare * u)
    assert torch.equal(token, 1 + (u * rest).floor().long())
    assert torch.allclose(p, torch.tensor(rare / rest, dtype=F64), rtol=1e-12)
    assert (categorical(logits, (1 - rare) * u)[0] == 0).all()

    def entropy(share: float) -> float:
        return -(1 - share) * math.log1p(-share) - share * math.log(share / rest)

    # Gumbel noise takes the rare ones if their largest -log(-log v) + log(rare/rest) beats token 0's. Given
    # v, that has the probability v^(rest (1 - rare)/rare); and v is the largest of `rest` uniforms, in
    # float32 a multiple of 2^-24.
    v = ((torch.arange(1_000_000, dtype=F64) + 0.5) / 1_000_000) ** (1 / rest)
    exact, single = (
        float((w ** (rest * (1 - rare) / rare)).mean()) for w in (v, (v * 2**24).floor() / 2**24)
    )
    print(exact, single, entropy(exact), entropy(single))
    assert exact == pytest.approx(rare, rel=1e-2)
    assert single < rare / 2
    assert entropy(single) < entropy(rare) / 2


def test_the_last_and_the_impossible_token() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -38 * math.log(2), -math.inf]])
    for u, token in ((0.0, 1), (0.5, 1), (1 - 2**-39, 2), (1 - 2**-53, 2)):
        assert int(categorical(logits, torch.tensor([u], dtype=F64))[0]) == token


def test_a_mask_within_the_vocabulary_is_never_drawn() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 9.0]).expand(*x.shape, 3)

    x = sample_masked(net, masks(500), 3, mask=MASK)
    assert x.max() < MASK
    assert abs(float(x.double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(x.numel())


def test_schedules_are_inverted() -> None:
    t = torch.linspace(0, 1, 101, dtype=F64)
    for alpha in (lambda t: 1 - t, cosine, lambda t: (1 - t) ** 3):
        assert torch.allclose(alpha(time_of(alpha, alpha(t))), alpha(t), rtol=0, atol=1e-15)


@pytest.mark.parametrize("sampler", [sample_first_hitting, sample_masked])
def test_refusals(sampler) -> None:
    net, x = denoiser(JOINT), masks(2)
    for match, change in (
        ("whole numbers", {"x_init": x.double()}),
        ("whole numbers", {"x_init": x[0]}),
        ("nowhere in x_init", {"mask": 7}),
        ("nfe = 0", {"nfe": 0}),
        ("alpha must fall", {"alpha": lambda t: t}),
        ("alpha must take", {"alpha": lambda t: math.cos(t)}),
    ):
        given = {"x_init": x, "nfe": 4, "mask": MASK, **change}
        with pytest.raises(ls.ArgumentError, match=match):
            sampler(net, given.pop("x_init"), given.pop("nfe"), **given)
    with pytest.raises(ls.SolveError, match=r"returned \[2, 4\]"):
        sampler(lambda x, t: x, x, 4, mask=MASK)
    with pytest.raises(ls.SolveError, match="call 1 of the network: NaN"):
        sampler(lambda x, t: net(x, t) * math.nan, x, 4, mask=MASK)


def test_refusals_of_remasking() -> None:
    with pytest.raises(ls.ArgumentError, match=r"both are in \[0, 1\]"):
        Remasking(cap=1.5)
    with pytest.raises(ls.ArgumentError, match="0 < t_off < t_on < 1"):
        Remasking(loop=(0.9, 0.05, 0.55))
    with pytest.raises(ls.ArgumentError, match="too few"):
        sample_masked(denoiser(JOINT), masks(2), 4, mask=MASK, remasking=Remasking(loop=(0.9, 0.55, 0.05)))
