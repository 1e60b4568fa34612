"""Denoisers, which predict the clean image from a noisy one: networks, exact denoisers, wrappers around them."""
