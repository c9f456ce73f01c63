"""How a run of a sample can end, and what is said where it did not get to its end."""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = ("running", "reached", "event", "step_limit", "step_underflow", "nfe_limit", "non_finite")
RUNNING, REACHED, EVENT, STEP_LIMIT, UNDERFLOW, NFE_LIMIT, NON_FINITE = range(len(STATUSES))


@dataclass(frozen=True)
class Standing:
    """What is known of a sample that stopped early.

    h: the step it wanted.  tries, rejected: steps.  grown: the size of its state over that of its start, or
    over 1.
    stiffness: h |lambda| of the last step, where the pair can tell; an explicit one lives below 3 or so.
    """

    method: str
    code: int
    t: float
    end: float
    h: float
    tries: int
    rejected: int
    grown: float
    stiffness: float
    rtol: float
    eps: float

    def message(self) -> str:
        """Where, why, and what to do; nothing for a sample that reached its end or a terminal event."""
        if self.code in (RUNNING, REACHED, EVENT):
            return ""
        where = (
            f"{self.method} stopped at t = {self.t:.9g} of {self.end:.9g} after {self.tries} steps, "
            f"{self.rejected} of them rejected"
        )
        return f"{where}: {self._why()}"

    def _why(self) -> str:
        if self.code == NON_FINITE:
            return (
                "x or f is NaN or infinite there, however short the step"
                if self.tries
                else "x or f is NaN or infinite at the start; check x0 and f there"
            ) + ("; the solution seems to blow up" if self.grown > 1e6 else "")
        what = self._what()
        if not self.tries:
            return f"{what} before the first step: give more"
        if self.stiffness > 2:
            return (
                f"{what}; h |lambda| = {self.stiffness:.2g} is at the limit of stability: the problem is "
                "stiff there, and wants an implicit method: rodas5p, radau5 or kvaerno5"
            )
        if self.rtol < 10 * self.eps:
            return f"{what}; rtol = {self.rtol:g} is at the round-off of the state: raise it, or use float64"
        if self.grown > 1e6:
            return f"{what}; |x| grew {self.grown:.1e}-fold: the solution seems to blow up near this t"
        if self.code == UNDERFLOW:
            return (
                f"{what}; f may jump there: give its time as jump_times=, end the run at an event, or raise "
                "the tolerances"
            )
        return f"{what}; give more, raise the tolerances, or take a method of higher order"

    def _what(self) -> str:
        return {
            STEP_LIMIT: "max_steps is spent",
            NFE_LIMIT: "the budget nfe= is spent",
            UNDERFLOW: f"the step it needs, {self.h:.2g}, is below min_step or what t can resolve",
        }[self.code]
