"""What a benchmark would cost on this machine: hours and disk, from a few timed steps and calls."""
