"""A plan that goes back: the rows of each step, solved for the states that the step began with.

A row is a linear relation between states and evaluations,

    X_k - sum_i x_ki X_i - sum_j f_kj F_j = 0,     F_j = field(t_j, X_j)

Going back, the states that a step kept are known and those that it began with are wanted. Whenever all
states of a row but one are known, and so are the states that its evaluations were made at, the row gives
that one: after a division by its weight it is a row of the same kind. BDIA's row has one unknown, the
older state; EDICT's four are solved one after another; a Runge-Kutta step has its unknown within an
evaluation, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from .core import Stage, Step, Weight
from .errors import ArgumentError
from .plan import Plan

Evaluation = tuple[int, float, int]  # of which state, at which time, by which field


@dataclass(frozen=True)
class Relation:
    """sum of weight * state + sum of weight * evaluation = 0, over one row of a plan."""

    states: Mapping[int, Weight]
    evaluations: Mapping[Evaluation, Weight]

    def solved(self, state: int) -> tuple[dict[int, Weight], dict[Evaluation, Weight]]:
        """Weights of the others in this state."""
        w = self.states[state]
        others = {i: -v / w for i, v in self.states.items() if i != state}
        return others, {e: -v / w for e, v in self.evaluations.items()}


@dataclass(frozen=True)
class Account:
    """A plan with each state named once: what a step begins with, keeps, and the rows between.

    known: the evaluations that it begins with.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    rows: tuple[Relation, ...]
    known: tuple[Evaluation, ...] = ()


def reverse(plan: Plan, *, start: bool = True) -> Plan:
    """The plan that undoes a plan, from all the states that its last step keeps; its times go the other way.

    A copy of a state is that state, and an evaluation that several steps share is made once, so a step
    back costs what the step forward does. Reversed twice, a plan is itself but for round-off.

    start: go back to the one state that the plan began with. False goes back as far as the full number of
    states does, and leaves out the steps before: from there the reversed plan, reversed, goes on exactly.

    Raises:
        ArgumentError: a step that cannot be undone, with the reason.
    """
    accounts = accounted(plan, start)
    size = len(accounts[-1].after)
    first = 0
    if not start:
        full = [n for n, account in enumerate(accounts) if len(account.before) == size]
        first = full[0] if full else len(accounts)
    if first == len(accounts):
        raise ArgumentError(
            f"method {plan.method}: all its {first} steps are its start; give it a larger nfe"
        )
    steps, held = list[Step](), tuple[Evaluation, ...]()
    for n in reversed(range(first, len(accounts))):
        if plan.steps[n].brownian is not None:
            raise _refused(plan, n, "it draws noise")
        older = {e for account in accounts[first:n] for row in account.rows for e in row.evaluations}
        step, held = _undone(plan, n, accounts[n], held, older)
        steps.append(step)
    return replace(
        plan, times=plan.times[: first - 1 if first else None : -1], steps=tuple(steps), states=size
    )


def accounted(plan: Plan, start: bool) -> list[Account]:
    """What each step does, with states named by numbers that hold for the whole plan."""
    count, size = plan.states, len(plan.steps[-1].keep_x)
    xs, fs = list(range(count)), list[Evaluation]()
    accounts = []
    for step in plan.steps:
        before, known, rows = tuple(xs), tuple(fs), list[Relation]()
        copies = not start and len(before) < size
        for stage in step.stages:
            states: dict[int, Weight] = {}
            evaluations: dict[Evaluation, Weight] = {}
            for kind, i, w in stage.terms:
                if kind == 0:
                    states[xs[i]] = states.get(xs[i], 0.0) + w
                elif kind == 1:
                    evaluations[fs[i]] = evaluations.get(fs[i], 0.0) + w
            copied = not evaluations and list(states.values()) == [1.0]
            copies = copies and copied and stage.at is None
            if copied and not copies:
                xs.append(next(iter(states)))
            else:
                if copies:  # one of the states that a pair begins with, which need not be equal going on
                    before = (*before, count)
                else:
                    minus = {e: -w for e, w in evaluations.items()}
                    rows.append(Relation({**{i: -w for i, w in states.items()}, count: 1.0}, minus))
                xs.append(count)
                count += 1
            if stage.at is not None:
                fs.append((xs[-1], stage.at, stage.field))
        xs, fs = [xs[i] for i in step.keep_x], [fs[i] for i in step.keep_f]
        accounts.append(Account(before, tuple(xs), tuple(rows), known))
    return accounts


class _Writer:
    """The rows of one reversed step, in the positions that its states and evaluations have there."""

    def __init__(self, states: Iterable[int], evaluations: Iterable[Evaluation]):
        self.x = {state: i for i, state in enumerate(states)}
        self.f = {evaluation: j for j, evaluation in enumerate(evaluations)}
        self.size, self.stages = len(self.x), list[Stage]()

    def evaluate(self, evaluation: Evaluation) -> None:
        if evaluation not in self.f:
            state, at, field = evaluation
            self.stages.append(Stage(_row({self.x[state]: 1.0}), at=at, field=field))
            self.f[evaluation] = len(self.f)
            self.size += 1

    def add(self, state: int, states: Mapping[int, Weight], evaluations: Mapping[Evaluation, Weight]) -> None:
        for evaluation in evaluations:
            self.evaluate(evaluation)
        x = _row({self.x[i]: w for i, w in states.items()})
        self.stages.append(Stage(x, _row({self.f[e]: w for e, w in evaluations.items()})))
        self.x[state], self.size = self.size, self.size + 1


def _row(weights: Mapping[int, Weight]) -> tuple[Weight, ...]:
    return tuple(weights.get(i, 0.0) for i in range(max(weights, default=-1) + 1))


def _undone(
    plan: Plan, n: int, account: Account, held: tuple[Evaluation, ...], older: set[Evaluation]
) -> tuple[Step, tuple[Evaluation, ...]]:
    """Step n solved for what it began with, and the evaluations to keep: those in `older` made by now."""
    writer, rows = _Writer(account.after, held), list(account.rows)
    while not set(account.before) <= writer.x.keys():
        for row in rows:
            unknown = [i for i in row.states if i not in writer.x]
            known = all(e in writer.f or e[0] in writer.x for e in row.evaluations)
            if len(unknown) == 1 and known and not _vanishes(row.states[unknown[0]]):
                writer.add(unknown[0], *row.solved(unknown[0]))
                rows.remove(row)
                break
        else:
            raise _refused(plan, n, _reason(account, writer))
    keep_f = tuple(e for e in writer.f if e in older)
    keep = tuple(writer.x[i] for i in account.before), tuple(writer.f[e] for e in keep_f)
    return Step(tuple(writer.stages), *keep), keep_f


def _vanishes(w: Weight) -> bool:
    return bool((w == 0).any()) if isinstance(w, Tensor) else w == 0


def _reason(account: Account, writer: _Writer) -> str:
    lost = {i for i in account.before if i not in writer.x}
    rows = [row for row in account.rows if lost & row.states.keys()]
    if not rows:
        return (
            "it forgets where it began, as the data prediction at the end does (final='sigma_min' has none)"
        )
    if any(e[0] not in writer.x for row in rows for e in row.evaluations):
        return "its evaluations are made at states that are not known when going back"
    if any(not _vanishes(row.states[i]) for row in rows for i in lost & row.states.keys()):
        return "its rows hold more unknown states than one"
    return "the weight of the state it began with is zero"


def _refused(plan: Plan, n: int, why: str) -> ArgumentError:
    return ArgumentError(
        f"method {plan.method}, step {n + 1} of {len(plan.steps)}, t = {plan.times[n]:.6g} to "
        f"{plan.times[n + 1]:.6g}, cannot be undone: {why}; use a reversible method such as bdia, or solve "
        "for the state with ls.invert(..., fixed_point=True)"
    )
