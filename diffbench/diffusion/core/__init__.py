"""What every method stands on: random streams, bases, the process, grids, predictions, transitions, integrators."""
