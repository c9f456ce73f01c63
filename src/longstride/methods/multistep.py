"""Multistep methods of variable step and order: the constants of their errors, one of each order.

In equal steps the error that a step of order k is judged by is constants[k - 1] times a backward difference:
h nabla^k f with Adams (between the Moulton correctors of orders k and k + 1), nabla^(k+1) x with BDF.
"""

from __future__ import annotations

Constants = tuple[float, ...]


def moulton(highest: int) -> Constants:
    """gamma*_1, gamma*_2, ...: sum_(i<=k) gamma*_i/(k + 1 - i) = 0 and gamma*_0 = 1."""
    found = [1.0]
    for k in range(1, highest + 1):
        found.append(-sum(g / (k + 1 - i) for i, g in enumerate(found)))
    return tuple(found[1:])


ADAMS = {"adams": moulton(12)}
BDFS = {"bdf": tuple(1 / (k + 1) for k in range(1, 6))}
