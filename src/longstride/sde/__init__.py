"""Stochastic differential equations."""
