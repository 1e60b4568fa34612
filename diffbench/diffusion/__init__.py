"""The mathematics: a library of its own that knows no files, no YAML and no networks.

Its modules stand in this order, and each imports only what stands before it: streams, bases, schedules,
processes, grids, predictions, transitions, denoisers, analytic, objectives, solvers, likelihoods.
"""
