"""The daemon process: configuration, control API, store, and the session that joins the overlay to
the learner process.

This room imports no torch: from `learner` it uses only the torch-free modules (job, schema,
messages, channel). `node` is the composition root; nothing else builds concrete parts.
"""
