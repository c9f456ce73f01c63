"""What exponax makes of the cases of equations.py, which calls this in an environment that has it.

python equations_exponax.py CASES.json STARTS.npz ENDS.npz
"""

from __future__ import annotations

import json
import sys

import exponax
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)


def main(cases: str, starts: str, ends: str) -> None:
    found, x0 = {}, np.load(starts)
    with open(cases) as file:
        asked = json.load(file)
    for name, case in asked.items():
        make = getattr(exponax.stepper, case["class"], None) or getattr(
            exponax.stepper.generic, case["class"], None
        )
        make = make or getattr(exponax.stepper.reaction, case["class"])
        for steps in case["steps"]:
            order = {} if case["linear"] else {"order": 4}
            stepper = make(
                case["dim"], case["length"], case["n"], case["end"] / steps, **order, **case["options"]
            )
            found[f"{name} {steps}"] = np.asarray(jax.jit(exponax.repeat(stepper, steps))(x0[name]))
    np.savez(ends, **found)


main(*sys.argv[1:])
