"""Learning on one peer: data, models, training, mixing, checkpoints, and the worker process.

This room knows neither the network nor Trio. `job`, `schema`, `messages` and `channel` are free of
torch, because the daemon process imports them; everything else may use torch.
"""
