"""The expected cost of a benchmark on this machine, hours and disk, from a few timed steps and calls."""
