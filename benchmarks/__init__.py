"""Measurements of the running program, never part of the tests: `python -m benchmarks.NAME`."""
