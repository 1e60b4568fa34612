"""What every method stands on: streams, bases, process, condition, grids, predictions, transitions, integrators."""
