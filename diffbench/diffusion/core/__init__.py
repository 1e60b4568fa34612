"""The base of every room: random streams, bases, the process, grids, predictions, transitions, integrators."""
