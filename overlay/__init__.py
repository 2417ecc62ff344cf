"""The neighbour overlay: who is there, who is linked to whom, and moving bytes between them.

Decisions live in synchronous machines (`membership`, `suspicion`, `heartbeat`, `topology`, joined
in `machine`): an event and the time go in, effects come out. `driver` performs the effects on Trio.
This room knows neither torch nor the learner: what neighbours say to each other about training are
opaque notes, and a model is a blob with a layout digest.
"""
