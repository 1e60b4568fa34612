"""One step (x_t, t, s) each; the loop over a grid is written once, in ``loop``."""
