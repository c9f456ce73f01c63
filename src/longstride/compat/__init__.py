"""Longstride behind the calls that people already write. Each file needs an extra, and nothing imports it."""
