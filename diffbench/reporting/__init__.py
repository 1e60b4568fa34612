"""From results on disk to tables.  torch is not imported; pandas and tabulate only by what uses them."""
