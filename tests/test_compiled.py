"""compile=True: the same numbers, and one graph for all evaluations of a plan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import longstride as ls
from longstride import compiled
from longstride.methods import REGISTRY
from longstride.models import mixture

F64 = torch.float64


@pytest.mark.parametrize("process", [ls.process.EDM(), ls.process.Flow(), ls.process.VP(discrete=True)])
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_matrices_of_a_plan_do_what_its_rows_do(name: str, process, monkeypatch) -> None:
    monkeypatch.setattr(
        compiled, "_compiled", lambda: compiled._advance
    )  # the algebra alone, without a compiler
    model = mixture(dim=3, components=3, process=process)
    plan = ls.plan_sampling(process, name, 9)
    x = ls.prior(model, 3, t=plan.times[0], dtype=F64)
    rows, matrices = (ls.sample(model, x_init=x, plan=plan, seed=3, compile=c) for c in (False, True))
    assert torch.allclose(matrices, rows, rtol=1e-9, atol=1e-9)


class Net(torch.nn.Module):
    """A network that knows nothing, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
        self.double()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t.log()[:, None]], 1)) + y[:, None]


def test_one_graph_serves_a_plan_of_20_steps_and_the_next_plan_too() -> None:
    torch._dynamo.reset()
    model = ls.Denoiser(Net(), ls.process.EDM(), shape=(2,), null={"y": 0.5})
    asked = {"n": 4, "cond": {"y": [0.1, 0.2, 0.3, 0.4]}, "guidance": 2.0}
    for nfe, graphs in ((20, 1), (12, 0)):
        counters.clear()
        fast = ls.sample(model, nfe=nfe, compile=True, **asked)
        assert (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())) == (graphs, 0)
        assert torch.allclose(fast, ls.sample(model, nfe=nfe, **asked), rtol=1e-9, atol=1e-9)


def test_a_compiled_run_that_fails_names_the_step(monkeypatch) -> None:
    monkeypatch.setattr(compiled, "_compiled", lambda: compiled._advance)
    model = ls.Denoiser(lambda x, t: x / (t[:, None] > 1), ls.process.EDM(), shape=(2,))
    with pytest.raises(ls.SolveError, match=r"ddim, step 4 of 6.*NaN"):
        ls.sample(model, 1, method="ddim", grid=[80.0, 20.0, 5.0, 0.9, 0.3, 0.1], compile=True)
    with pytest.raises(ls.ArgumentError, match="callback"):
        ls.sample(model, 1, compile=True, callback=print)
