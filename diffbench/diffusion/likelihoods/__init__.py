"""Negative log likelihoods, and bounds on them, in bits per dimension."""
