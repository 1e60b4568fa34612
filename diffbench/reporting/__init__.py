"""From results on disk to tables.  No torch; pandas and tabulate only when a file is written."""
