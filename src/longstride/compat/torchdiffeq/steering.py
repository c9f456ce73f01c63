"""What torchdiffeq's steps do beyond a controller's: callbacks, and min_step, below which all is accepted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...control import Controller, History
from .inputs import Asked, Callback


class Steering:
    """A controller that keeps steps of `least` whatever their error, and calls back at each."""

    def __init__(
        self, controller: Controller, least: float, call: Asked, callbacks: Mapping[str, Callback]
    ) -> None:
        self.controller, self.least, self.call, self.callbacks = controller, least, call, callbacks
        self.needed = bool(least > 0 or callbacks)

    def before(self, t: Tensor, x: Tensor, h: Tensor) -> None:
        self.t, self.y, self.h = t, self.call.form.state(x), h
        self._tell("callback_step")

    def start(self, ones: Tensor) -> History:
        return self.controller.start(ones)

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]:
        factor, accept, history = self.controller.control(ratio, history, power)
        if self.least > 0:
            accept = accept | ((self.h <= self.least) & ratio.isfinite())
            factor = torch.maximum(factor, self.least / self.h)
        self._tell("callback_accept_step" if bool(accept) else "callback_reject_step")
        return factor, accept, history

    def _tell(self, name: str) -> None:
        if name in self.callbacks:
            self.callbacks[name](self.t, self.y, self.h[0])
