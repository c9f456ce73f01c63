"""What each part of tuning gives: times, weights, both, conditioning times, on exact models.

    python benchmarks/ablation.py

"Times only" is the best untuned method with its times searched by CMA-ES on noises of the fit. The others
begin from the best fit: its closed form, then what a polish makes of it when some of the numbers stay.
"""

from __future__ import annotations

from pathlib import Path

import torch

import longstride as ls
import ours
import tasks
from longstride.learn import cma_search, descend, endpoint_cost, fit, polish
from longstride.learn.judge import Judge
from longstride.learn.subject import Sampling
from longstride.learn.tuning import Tuning

NFE, NOISES = 6, [4096, 512, 2048, 0]
MODELS = ("mixture-edm", "mixture-vp", "mixture-flow", "digits-edm")
HEAD = ("model", "best untuned", "times only", "weights, closed form", "by gradients", "by polish",
        "times and weights",
        "and conditioning times", "and slack")  # fmt: skip
ABOUT = f"""# What each part of tuning gives

Made by `python benchmarks/ablation.py`. Held-out end-point error at {NFE} evaluations, fitted to
{NOISES[0]} noises, of {NOISES[2]} others. Times only: the best untuned method with times found by CMA-ES.
All others begin from one grid, where `ls.tune` tries several: the weights of the closed form; these taken
on by backpropagation and L-BFGS (`descend`), or by Levenberg-Marquardt (`polish`); then times move with
them, then the times that the network is asked at; then slack, without which a network that always says the
same is solved exactly.
"""


def measured(model: str) -> list[str]:
    network = ours.denoiser(tasks.task(model))
    subject = Sampling(network, None, 1.0, sum(NOISES), 0, 1024)
    tuning = Tuning(subject, Judge(lambda x: x, None), 0.0, NOISES, 0, 200, None, print)

    def error(plan: ls.Plan) -> float:
        return ls.metrics.endpoint_error(subject.ends(plan, tuning.report_rows), tuning.report)

    process, untuned = network.process, tuning.untuned(NFE)[0].plan
    cost = endpoint_cost(network, tuning.search.few.paths, untuned.method)
    searched = ls.plan_sampling(process, untuned.method, grid=cma_search(process, untuned.times[:-1], cost))
    times, plain = tuning.search.fitted(NFE)[0][1].times, tuning.plain
    closed = fit(subject.field(plain.rows), times, plain.paths)[0]
    moved, told = range(NFE - 1), range(NFE - 1, 2 * NFE - 1)
    slack = closed.slackness
    rest = [descend(subject.field, closed, plain.paths, iterations=60)[0].plan()]
    rest += [
        polish(subject.field, closed, plain.paths, fixed=fixed)[0].plan()
        for fixed in ([*moved, *told, *slack], [*told, *slack], slack, ())
    ]
    plans = [untuned, searched, closed.plan(), *rest]
    return [model, *(f"{error(plan):.4f}" for plan in plans)]


def main() -> None:
    torch.set_num_threads(1)
    rows = [HEAD, ["---"] * len(HEAD)]
    path = Path(__file__).parent / "results" / "ablation.md"
    for model in MODELS:
        rows.append(measured(model))
        print(*rows[-1], flush=True)
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        path.write_text(f"{ABOUT}\n{table}\n")


if __name__ == "__main__":
    main()
