"""The base of every room: streams, bases, the process, the condition, grids, predictions, transitions, integrators."""
