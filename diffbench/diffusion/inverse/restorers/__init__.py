"""Restorers: they draw images given a degraded measurement of them."""
