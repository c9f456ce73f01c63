"""Going back: rows solved exactly, states that go on, fixed points, and what is only approximate."""

from __future__ import annotations

import pytest
import torch

import longstride as ls
from longstride.integrate import run
from longstride.methods import REGISTRY
from longstride.models import mixture
from longstride.reverse import reverse

F64 = torch.float64
REVERSIBLE = [name for name in sorted(REGISTRY) if REGISTRY[name].kind == "reversible"]
PROCESSES = {"EDM": ls.process.EDM(), "VP": ls.process.VP(), "flow": ls.process.Flow()}


def states(process: ls.process.Process, method: str, nfe: int, **options: object):
    """Fields, the plan to t_min, where it began and what its last step keeps."""
    model = mixture(dim=8, process=process)
    plan = ls.plan_sampling(process, method, nfe, final="sigma_min", **options)
    kept: list[torch.Tensor] = []
    x = ls.prior(model, 4, dtype=F64)
    run(model.fields(), plan, x, kept=kept)
    return model.fields(), plan, x, kept


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).norm() / y.norm())


@pytest.mark.parametrize("method", REVERSIBLE)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
@pytest.mark.parametrize("nfe", [5, 20, 50])
def test_a_reversed_plan_returns_to_where_a_sample_began(
    method: str, process: ls.process.Process, nfe: int
) -> None:
    fields, plan, x, kept = states(process, method, nfe)
    first = 2 if plan.steps[0].nfe and process.alpha(process.t_max) == 0 else 0
    plan_of_rows = ls.Plan(plan.times, plan.steps, plan.made_for)
    if first:  # the first step, DDIM from pure noise, is of one state and no reversible one
        with pytest.raises(ls.ArgumentError, match="step 1 of"):
            reverse(plan_of_rows)
        return
    back = reverse(plan)
    assert back.times == plan.times[::-1]
    assert relative(run(fields, back, kept)[0][-1], x) < 1e-9
