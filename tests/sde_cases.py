"""Every method of SDEs with every noise and integral that it is for."""

from longstride.methods.sde import INTERPRETATIONS, KINDS, SCHEMES

CASES = [
    (name, noise, sense)
    for name, scheme in SCHEMES.items()
    for noise in KINDS
    for sense in INTERPRETATIONS
    if scheme.fits(noise, sense)
]
