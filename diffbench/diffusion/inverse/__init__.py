"""Inverse problems y = H x + noise: the operators H, and the restorers that draw images x given y."""
