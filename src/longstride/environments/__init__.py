"""Step-size problems to decide on: what is run, seen and rewarded, for many systems at once."""

from typing import TYPE_CHECKING, Any

from .decisions import Decided, Decisions, Seen, Task, digits_less_cost, drift
from .networks import Network
from .runs import Solved

if TYPE_CHECKING:
    from .gymnasium import Many, Single
    from .stable import Stable

__all__ = [
    "Decided",
    "Decisions",
    "Many",
    "Network",
    "Seen",
    "Single",
    "Solved",
    "Stable",
    "Task",
    "digits_less_cost",
    "drift",
]


def __getattr__(name: str) -> Any:
    """What needs gymnasium or stable-baselines3 comes when it is asked for."""
    if name in ("Many", "Single"):
        from . import gymnasium

        return getattr(gymnasium, name)
    if name == "Stable":
        from .stable import Stable

        return Stable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
