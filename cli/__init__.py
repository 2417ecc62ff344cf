"""The two programs: `gossipd` (start, init, demo) and `gossipctl` (everything else).

Thin: parse, call the control API, render. `gossipctl` imports neither Trio nor torch.
"""
