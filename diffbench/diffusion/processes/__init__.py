"""Processes, which add noise to data: q(x_t | x_0), the SDE's f and g^2, the prior."""
