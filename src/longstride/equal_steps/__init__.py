"""Runs in equal steps, at the memory of one."""
