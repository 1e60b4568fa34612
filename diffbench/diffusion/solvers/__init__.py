"""Solvers: each is one step (x_t, t, s); the loop over a grid is written once, in ``loop``."""
