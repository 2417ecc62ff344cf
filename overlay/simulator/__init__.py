"""The overlay without machines: thousands of peers in one process, on one simulated clock.

The decisions are those of the daemon (`overlay.machine`, unchanged); only what carries them is
simulated. `python -m overlay.simulator --help` says what can be tried.
"""
